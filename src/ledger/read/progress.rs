//! How far the engine has come.

use cf_types::{EpochRecord, Time};

use super::Reader;
use crate::{LedgerError, database};

impl Reader {
    /// The newest epoch's record and the watermark after it; `None` before the first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn last_epoch(&self) -> Result<Option<(EpochRecord, Option<Time>)>, LedgerError> {
        let row: Option<(String, Option<i64>)> =
            database::query_as("SELECT record, watermark FROM epochs ORDER BY epoch DESC LIMIT 1")
                .fetch_optional(&self.pool)
                .await
                .map_err(LedgerError::store("read the newest epoch"))?;
        let Some((record, watermark)) = row else { return Ok(None) };
        let record = serde_json::from_str(&record).map_err(LedgerError::damaged("an epoch record"))?;
        Ok(Some((record, watermark.map(Time::from_micros))))
    }
}
