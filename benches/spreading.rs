//! `spread FILE COPIES`: COPIES copies of a file of JSON lines (.zst too), each spread, to standard output.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
};

use anyhow::{Context, Result, bail};
use cf_benches::spread::spread;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [path, copies] = &words[..] else { bail!("usage: spread FILE COPIES") };
    let copies: u32 = copies.parse().context("COPIES is a number")?;
    let mut out = BufWriter::new(io::stdout().lock());
    for copy in 0..copies {
        let file = File::open(path).with_context(|| format!("could not open {path}"))?;
        let reader: Box<dyn BufRead> = if path.ends_with(".zst") {
            Box::new(BufReader::new(zstd::Decoder::new(file)?))
        } else {
            Box::new(BufReader::new(file))
        };
        for line in reader.lines() {
            writeln!(out, "{}", spread(&line?, copy))?;
        }
    }
    out.flush()?;
    Ok(())
}
