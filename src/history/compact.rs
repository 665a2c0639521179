//! Which small files become one: by day, files of about one size, so that a row is rewritten a few times in all and not
//! with every commit.
//!
//! A day that is over is made of few files, sorted by hour and whom they speak of. Files that are large already, and were
//! made of others, are left alone.

use std::collections::BTreeMap;

use cf_types::Time;

use crate::{files::EPOCHS, stored::Stored};

/// A file from here on is large enough.
const LARGE_BYTES: u64 = 8 << 20;
/// What is read for one file at most: Parquet of some 24 MiB is about 300 MB in memory.
const TARGET_BYTES: u64 = 24 << 20;
/// Files of one size before they are joined while their day is still written.
const ALIKE_MIN: usize = 8;
/// Files joined at once.
const JOINED_MAX: usize = 512;
/// Sizes that count as alike: below each of these.
const SIZES: [u64; 3] = [64 << 10, 512 << 10, 4 << 20];

/// The groups of files to be joined, in order; `all` takes days that are still written for days that are over.
pub(crate) fn plan(files: &[Stored], now: Time, all: bool) -> Vec<Vec<Stored>> {
    let mut days: BTreeMap<&Option<String>, Vec<&Stored>> = BTreeMap::new();
    for file in files {
        days.entry(&file.day).or_default().push(file);
    }
    // Yesterday may still get late events.
    let yesterday = Time::from_seconds(now.cell().saturating_sub(86_400)).to_string();
    let mut groups = Vec::new();
    for (day, files) in days {
        let over = all || day.as_deref().is_some_and(|day| day < yesterday.get(..10).unwrap_or_default());
        if over {
            let (raw, merged): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| is_raw(file));
            let small = merged.into_iter().filter(|file| file.bytes < LARGE_BYTES);
            parted(raw.into_iter().chain(small).collect(), true, &mut groups);
            continue;
        }
        let mut sizes: BTreeMap<usize, Vec<&Stored>> = BTreeMap::new();
        for file in files.into_iter().filter(|file| file.bytes < LARGE_BYTES) {
            let size = SIZES.iter().filter(|limit| file.bytes >= **limit).count();
            sizes.entry(size).or_default().push(file);
        }
        for alike in sizes.into_values().filter(|alike| alike.len() >= ALIKE_MIN) {
            parted(alike, false, &mut groups);
        }
    }
    groups
}

/// Parts files into groups of the size of one file, in the order of their time. A single file is worth it only if it was
/// never sorted.
fn parted(mut files: Vec<&Stored>, sort_single: bool, groups: &mut Vec<Vec<Stored>>) {
    files.sort_by(|a, b| (a.oldest, &a.path).cmp(&(b.oldest, &b.path)));
    let mut group: Vec<Stored> = Vec::new();
    let mut bytes = 0;
    let mut done = |group: Vec<Stored>| {
        let single = sort_single && group.first().is_some_and(is_raw);
        if group.len() > 1 || single {
            groups.push(group);
        }
    };
    for file in files {
        if !group.is_empty() && (bytes + file.bytes > TARGET_BYTES || group.len() >= JOINED_MAX) {
            done(std::mem::take(&mut group));
            bytes = 0;
        }
        bytes += file.bytes;
        group.push(file.clone());
    }
    done(group);
}

/// Whether a commit of epochs wrote it: sorted by time alone.
fn is_raw(file: &Stored) -> bool {
    file.path.rsplit('/').next().is_some_and(|name| name.starts_with(EPOCHS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `epoch 5 10k` is a file of a commit on day 5 of 10 KiB.
    fn check(input: &str, all: bool, expected: &[usize]) {
        let files: Vec<Stored> = input
            .split(", ")
            .zip(0..)
            .map(|(text, i)| {
                let words: Vec<&str> = text.split(' ').collect();
                let day = format!("2026-01-{:02}", words[1].parse::<u32>().unwrap());
                Stored {
                    path: format!("day={day}/{}-{i:05}.parquet", words[0]),
                    bytes: words[2].trim_end_matches('k').parse::<u64>().unwrap() << 10,
                    rows: 1,
                    oldest: Some(Time::from_seconds(i)),
                    newest: Some(Time::from_seconds(i)),
                    day: Some(day),
                }
            })
            .collect();
        let now = "2026-01-07T12:00:00Z".parse().unwrap();
        let sizes: Vec<usize> = plan(&files, now, all).iter().map(Vec::len).collect();
        assert_eq!(sizes, expected, "{input}");
    }

    fn times(text: &str, n: usize) -> String {
        vec![text; n].join(", ")
    }

    #[test]
    fn files_of_one_size_are_joined_while_their_day_is_written() {
        check(&times("epoch 7 10k", 7), false, &[]);
        check(&times("epoch 7 10k", 8), false, &[8]);
        check(&format!("{}, {}", times("epoch 7 10k", 7), times("merged 7 100k", 7)), false, &[]);
        check(&times("merged 7 5000k", 12), false, &[4, 4, 4]);
        check(&times("merged 7 9000k", 12), false, &[]);
    }

    #[test]
    fn a_day_that_is_over_is_made_of_few_sorted_files() {
        check("epoch 5 10k, merged 5 100k", false, &[2]);
        check("merged 5 10k", false, &[]);
        check("epoch 5 10k", false, &[1]);
        check("epoch 5 30000k, merged 5 30000k", false, &[1]);
        check("epoch 6 10k, epoch 6 10k", false, &[]); // yesterday
        check("epoch 6 10k, epoch 6 10k", true, &[2]);
        check("epoch 4 10k, epoch 5 10k", false, &[1, 1]);
    }
}
