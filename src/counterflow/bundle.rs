//! A bundle: what an incident's alerts are made of, in one file, so that another machine comes to the same alerts.
//!
//! JSON lines, compressed (zstd): first a [`Manifest`], then rule texts in their order, facts, events. Of the events it has
//! those that some rule met, as far before and after the incident as an episode reaches: what no rule met makes no alert.
//! What hunts found in that time is in it as it was recorded, since there is no history to ask again.
//! Bounds: [`EVENTS_MAX`] events, and lines of [`LINE_BYTES_MAX`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use cf_history::{Delivery, Known, RECORD_COLUMNS};
use cf_types::{AlertId, Cell, Detection, Fact, Framing, Origin, Position, Record, Tenant, Time, TimeBasis};
use serde::{Deserialize, Serialize};

use crate::{
    output::Failed,
    past::{Kept, Past, Point},
};

/// Version of the format. A bundle without finds of hunts is written as version 1, which older programs read.
const FORMAT: u32 = 2;
/// Events of one bundle.
const EVENTS_MAX: usize = 1_000_000;
/// The longest line that is read.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What stands first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// Version of the engine that wrote it.
    engine: String,
    /// Number of the incident where it is from.
    pub(crate) incident: i64,
    /// The last epoch that is in it.
    epoch: u64,
    /// The incident's alerts, each with its members.
    pub(crate) alerts: BTreeMap<AlertId, u64>,
    /// What the epochs were computed with.
    pub(crate) settings: Kept,
}

/// One line behind the manifest.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Rule { file: String, text: String },
    Fact(Fact),
    Event(EventLine),
    Found(Detection),
}

#[derive(Serialize, Deserialize)]
struct EventLine {
    tenant: Tenant,
    source: Arc<str>,
    received_at: Time,
    year: Option<i16>,
    position: Position,
    time: Time,
    time_basis: TimeBasis,
    raw: String,
}

/// A bundle that was read.
pub(crate) struct Bundle {
    pub(crate) manifest: Manifest,
    pub(crate) texts: Vec<cf_sigma::Text>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) events: Vec<Delivery>,
    /// What hunts had found.
    pub(crate) found: Vec<Detection>,
}

/// Writes the bundle of an incident; gives how many events it has.
pub(crate) fn write(past: &Past, incident: i64, point: Point, out: &Path) -> Result<usize> {
    let alerts = past.alerts_of_incident(incident)?;
    let (Some(first), Some(last)) =
        (alerts.iter().map(|alert| alert.anchor).min(), alerts.iter().map(|alert| alert.last_cell).max())
    else {
        return Err(Failed(format!("there is no incident {incident}, or it has no alerts")).into());
    };
    let rules = past.rules_of(point.epoch)?;
    let reach = rules.set.episode_rules().iter().map(|rule| rule.cut() * 2 + rule.reach()).max().unwrap_or(0);
    let extent = (first.saturating_sub(reach), last.saturating_add(reach));
    let (from, to) = (Time::from_seconds(extent.0), Time::from_seconds(extent.1.saturating_add(1)));
    let found = past.hunts_found(point.control, Some(from), Some(to))?;
    let manifest = Manifest {
        format: if found.is_empty() { 1 } else { FORMAT },
        engine: crate::commit::ENGINE.to_owned(),
        incident,
        epoch: point.epoch,
        alerts: alerts.iter().map(|alert| (alert.id, alert.count)).collect(),
        settings: past.kept(),
    };
    let failed = || format!("could not write {}", out.display());
    let file = File::create_new(out).with_context(failed)?;
    let mut lines = zstd::Encoder::new(BufWriter::new(file), 3).with_context(failed)?;
    put(&mut lines, &manifest)?;
    for text in &rules.texts {
        put(&mut lines, &Line::Rule { file: text.file.to_string(), text: text.text.clone() })?;
    }
    for fact in past.facts_at(point.control)? {
        put(&mut lines, &Line::Fact(fact))?;
    }
    for found in found {
        put(&mut lines, &Line::Found(found))?;
    }
    let events = write_events(past, extent, point, &mut lines)?;
    lines.finish().and_then(|mut file| file.flush()).with_context(failed)?;
    Ok(events)
}

/// The events between two cells that some rule met, each delivery once.
fn write_events(past: &Past, (from, to): (Cell, Cell), point: Point, out: &mut impl Write) -> Result<usize> {
    let columns: Vec<String> = RECORD_COLUMNS.iter().map(|column| format!("e.{column}")).collect();
    let (from, to) = (Time::from_seconds(from), Time::from_seconds(to.saturating_add(1)));
    let statement = format!(
        "select {} from events e left semi join detections d
           on d.origin = e.origin and d.record_offset = e.record_offset and d.record_index = e.record_index
              and d.source = e.source
         where e.epoch <= {} and e.time >= cast('{from}' as timestamp) and e.time < cast('{to}' as timestamp)
         order by e.time, e.origin, e.record_offset, e.record_index",
        columns.join(", "),
        point.epoch
    );
    let (mut known, mut count) = (Known::default(), 0);
    past.each_batch(&statement, &mut |batch| {
        for delivery in known.deliveries(batch)? {
            count += 1;
            if count > EVENTS_MAX {
                bail!("more than {EVENTS_MAX} events that rules met lie around this incident");
            }
            put(out, &Line::Event(EventLine::of(&delivery)))?;
        }
        Ok(())
    })?;
    Ok(count)
}

fn put(out: &mut impl Write, line: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, line).context("could not write a line of the bundle")?;
    Ok(out.write_all(b"\n")?)
}

impl EventLine {
    fn of(delivery: &Delivery) -> EventLine {
        let Record { origin, position, bytes } = &delivery.record;
        EventLine {
            tenant: origin.tenant.clone(),
            source: Arc::clone(&origin.source),
            received_at: origin.received_at,
            year: origin.year,
            position: position.clone(),
            time: delivery.time,
            time_basis: delivery.time_basis,
            raw: String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    fn delivery(self) -> Delivery {
        let EventLine { tenant, source, received_at, year, position, time, time_basis, raw } = self;
        let origin = Arc::new(Origin { tenant, source, received_at, year, framing: Framing::Record });
        Delivery { epoch: 1, time, time_basis, record: Record { origin, position, bytes: raw.into() } }
    }
}

/// Reads a bundle.
pub(crate) fn read(path: &Path) -> Result<Bundle> {
    let failed = || format!("could not read bundle {}", path.display());
    let file = File::open(path).with_context(failed)?;
    let mut lines = BufReader::new(zstd::Decoder::new(file).with_context(failed)?);
    let first = next(&mut lines).with_context(failed)?.unwrap_or_default();
    let manifest: Manifest =
        serde_json::from_slice(&first).with_context(|| format!("{} is no bundle", path.display()))?;
    if manifest.format > FORMAT {
        bail!("{} is a bundle of format {}; this program knows {FORMAT}", path.display(), manifest.format);
    }
    let mut bundle = Bundle { manifest, texts: Vec::new(), facts: Vec::new(), events: Vec::new(), found: Vec::new() };
    let mut number = 1_u64;
    while let Some(line) = next(&mut lines).with_context(failed)? {
        number += 1;
        let damaged = || format!("line {number} of bundle {} is damaged", path.display());
        match serde_json::from_slice(&line).with_context(damaged)? {
            Line::Rule { file, text } => bundle.texts.push(cf_sigma::Text { file: file.into(), text }),
            Line::Fact(fact) => bundle.facts.push(fact),
            Line::Event(event) => bundle.events.push(event.delivery()),
            Line::Found(found) => bundle.found.push(found),
        }
        if bundle.events.len() + bundle.found.len() > EVENTS_MAX {
            bail!("bundle {} has more than {EVENTS_MAX} events", path.display());
        }
    }
    Ok(bundle)
}

/// The next line, without its end; `None` behind the last.
fn next(lines: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        bail!("a line is cut off, or longer than {LINE_BYTES_MAX} bytes");
    }
    Ok(Some(line))
}

/// The alerts of a bundle that a replay did not come to, or with other members.
pub(crate) fn missing(manifest: &Manifest, found: &BTreeMap<AlertId, u64>) -> BTreeSet<AlertId> {
    let differs = |(id, count): &(&AlertId, &u64)| found.get(*id) != Some(*count);
    manifest.alerts.iter().filter(differs).map(|(id, _)| *id).collect()
}
