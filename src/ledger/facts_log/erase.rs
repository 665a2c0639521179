//! Erasure: the log written anew without some detections, and put in the place of the old one at once.

use std::{fs, io, path::Path};

use cf_types::{Detection, Epoch};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{FactsLog, FactsLogError, at};

/// Writes the log in `dir` anew without the detections for which `erased` is true; gives how many they were. The log must
/// not be open. A crash leaves the old log or the new one, whole.
///
/// # Errors
///
/// When the log is damaged (what is in the damaged part cannot be told) or the system refuses.
pub fn erase(dir: &Path, erased: &dyn Fn(&Detection) -> bool) -> Result<usize, FactsLogError> {
    if !dir.is_dir() {
        return Ok(0);
    }
    let (_log, mut loaded) = FactsLog::open(dir)?;
    if let Some(damage) = loaded.damage.first() {
        return Err(at("erase from", dir)(io::Error::new(io::ErrorKind::InvalidData, damage.clone())));
    }
    let before = loaded.detections.len();
    let mut by_epoch: Vec<(Epoch, Detection)> = loaded.epochs.drain(..).zip(loaded.detections.drain(..)).collect();
    by_epoch.retain(|(_, detection)| !erased(detection));
    let count = before - by_epoch.len();
    if count == 0 {
        return Ok(0);
    }
    by_epoch.sort_by_key(|(epoch, _)| *epoch);
    let new = dir.with_extension("new");
    remove(&new).map_err(at("remove", &new))?;
    let (log, _) = FactsLog::open(&new)?;
    // The last epoch says how far the log reaches, whether or not anything of it is left.
    let last = loaded.frontier.saturating_sub(1);
    for of_epoch in by_epoch.chunk_by(|a, b| a.0 == b.0) {
        let Some((epoch, _)) = of_epoch.first() else { continue };
        let detections: Vec<Detection> = of_epoch.iter().map(|(_, detection)| detection.clone()).collect();
        log.append_epoch(*epoch, &detections, loaded.watermark.filter(|_| *epoch == last));
    }
    log.append_epoch(last, &[], loaded.watermark);
    log.flush(Epoch::MAX)?;
    drop(log);
    renameat_with(CWD, &new, CWD, dir, RenameFlags::EXCHANGE).map_err(|errno| at("replace", dir)(errno.into()))?;
    remove(&new).map_err(at("remove", &new))?;
    Ok(count)
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
