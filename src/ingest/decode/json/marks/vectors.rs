//! Blocks read by vector instructions, where the processor has them.
//!
//! The only unsafe code of decoding. It pays: decoding an event of 1.7 kB took 1,961 ns so and 4,994 ns byte by byte, in one
//! run (`benches/runs/2026-11-22-engine.json`). What is relied on: a function is called only after the processor was asked
//! for its instructions, and a block is an array of 64 bytes, so that a load of 64 bytes (aligned or not) stays within it.
//! The tests below compare every way with the plain one; `tests/oracle` and the fuzz target `record` the whole reader.
#![allow(unsafe_code)]

use super::{Block, Marks};

/// Reads a record by the best way there is.
#[cfg(target_arch = "x86_64")]
pub(super) fn read(marks: &mut Marks, bytes: &[u8]) {
    // The answers are kept by the standard library: asking is a load and a test.
    if std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("bmi1") {
        // SAFETY: the processor has AVX-512BW and BMI1.
        unsafe { read_avx512(marks, bytes) }
    } else if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi1") {
        // SAFETY: the processor has AVX2 and BMI1.
        unsafe { read_avx2(marks, bytes) }
    } else {
        marks.read_blocks(bytes, Block::read_plainly);
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn read(marks: &mut Marks, bytes: &[u8]) {
    marks.read_blocks(bytes, Block::read_plainly);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,bmi1")]
fn read_avx512(marks: &mut Marks, bytes: &[u8]) {
    use std::arch::x86_64::{_mm512_cmpeq_epi8_mask, _mm512_cmplt_epu8_mask, _mm512_loadu_si512, _mm512_set1_epi8};
    let (quote, slash, blank) = (_mm512_set1_epi8(0x22), _mm512_set1_epi8(0x5c), _mm512_set1_epi8(0x20));
    marks.read_blocks(bytes, |block| {
        // SAFETY: the block has 64 bytes; the load needs no alignment.
        let lanes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        Block {
            quotes: _mm512_cmpeq_epi8_mask(lanes, quote),
            slashes: _mm512_cmpeq_epi8_mask(lanes, slash),
            controls: _mm512_cmplt_epu8_mask(lanes, blank),
        }
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1")]
fn read_avx2(marks: &mut Marks, bytes: &[u8]) {
    use std::arch::x86_64::{
        __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_set1_epi8,
    };
    let (quote, slash, last) = (_mm256_set1_epi8(0x22), _mm256_set1_epi8(0x5c), _mm256_set1_epi8(0x1f));
    let mask = |low: __m256i, high: __m256i| {
        let half = |bits: __m256i| u64::from(_mm256_movemask_epi8(bits).cast_unsigned());
        half(low) | half(high) << 32
    };
    marks.read_blocks(bytes, |block| {
        let (halves, _) = block.as_chunks::<32>();
        let [low, high] = halves else { return Block::read_plainly(block) };
        // SAFETY: each half has 32 bytes; the loads need no alignment.
        let (low, high) =
            unsafe { (_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())) };
        let below = |lanes: __m256i| _mm256_cmpeq_epi8(_mm256_min_epu8(lanes, last), lanes);
        Block {
            quotes: mask(_mm256_cmpeq_epi8(low, quote), _mm256_cmpeq_epi8(high, quote)),
            slashes: mask(_mm256_cmpeq_epi8(low, slash), _mm256_cmpeq_epi8(high, slash)),
            controls: mask(below(low), below(high)),
        }
    });
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_way_reads_alike(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut plain = Marks::default();
            plain.read_blocks(&bytes, Block::read_plainly);
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi1") {
                let mut marks = Marks::default();
                // SAFETY: the processor has AVX2 and BMI1.
                unsafe { read_avx2(&mut marks, &bytes) };
                prop_assert_eq!(format!("{marks:?}"), format!("{plain:?}"));
            }
            if std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("bmi1") {
                let mut marks = Marks::default();
                // SAFETY: the processor has AVX-512BW and BMI1.
                unsafe { read_avx512(&mut marks, &bytes) };
                prop_assert_eq!(format!("{marks:?}"), format!("{plain:?}"));
            }
        }
    }
}
