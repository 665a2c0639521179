//! Rejected records that go through again: asked for once each, by where they were (ING-05).
//!
//! What shall go through again is an entry of the control log, so it enters with an epoch like a fact, and a replay gives
//! it to the same epoch. The records lie in a table beside it until the facts log has that epoch. A reject is named by
//! position and epoch: asked for twice, it goes through once, also if the first answer was lost. A record that fails again
//! is a reject of its later epoch, which may be asked for again.

use std::collections::BTreeMap;

use cf_spool::record::{self, RecordDecoder};
use cf_types::{Epoch, Record, Time};
use serde_json::{Value, json};

use crate::{
    ControlLog, Ledger, LedgerError, Reader,
    apply::number,
    control,
    database::{self, Connection},
    schema,
};

/// Records go through again; the body names the rejects.
pub const RETRY: &str = "reject_retry";

/// Records of one entry at most: they enter one epoch together.
pub const RECORDS_MAX: usize = 500;

/// Which reject: tenant, source, origin, offset, index, and the epoch in which it was rejected.
pub type RejectKey = (String, String, String, u64, u32, Epoch);

/// A rejected record that shall go through again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// The epoch that rejected it.
    pub epoch: Epoch,
    /// The record, with its first position: what it becomes has the identity that it would have had.
    pub record: Record,
}

impl Retry {
    /// The reject that it was.
    #[must_use]
    pub fn key(&self) -> RejectKey {
        let Record { origin, position, .. } = &self.record;
        let (tenant, source) = (origin.tenant.as_str().to_owned(), origin.source.to_string());
        (tenant, source, position.origin.to_string(), position.offset, position.index, self.epoch)
    }
}

impl ControlLog {
    /// Lets rejected records, at most [`RECORDS_MAX`], go through again; gives the position in the control log and how many
    /// of them are new. Those that were asked for before are passed over; if all were, nothing is appended.
    ///
    /// # Errors
    /// The folder was not taken by an engine of this format yet, there are too many, or the ledger cannot be written.
    pub async fn retry(
        &mut self,
        retries: &[Retry],
        author: &str,
        reason: &str,
        at: Time,
    ) -> Result<Option<(i64, usize)>, LedgerError> {
        let store = LedgerError::store("let rejects go through again");
        let mut transaction = self.connection().begin().await.map_err(&store)?;
        if schema::format_of(&mut transaction).await? != Some(crate::format::FORMAT) {
            transaction.rollback().await.map_err(&store)?;
            let why = "the data folder has an older format; start `counterflow run` on it once, which migrates it";
            return Err(LedgerError::Fact { why: why.to_owned() });
        }
        let keys: Vec<RejectKey> = retries.iter().map(Retry::key).collect();
        let known = known(&mut transaction, &keys).await?;
        let mut new: BTreeMap<RejectKey, &Retry> = BTreeMap::new();
        new.extend(keys.into_iter().zip(retries).filter(|(key, _)| !known.contains_key(key)));
        if new.is_empty() {
            transaction.rollback().await.map_err(&store)?;
            return Ok(None);
        }
        if new.len() > RECORDS_MAX {
            transaction.rollback().await.map_err(&store)?;
            return Err(LedgerError::Fact { why: format!("at most {RECORDS_MAX} records go through again at once") });
        }
        let body = json!({"rejects": new.keys().collect::<Vec<_>>()}).to_string();
        let seq = control::append_in(&mut transaction, RETRY, &body, author, reason, at).await?;
        for ((tenant, source, origin, offset, index, epoch), retry) in &new {
            database::query("INSERT INTO retries VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
                .bind(tenant)
                .bind(source)
                .bind(origin)
                .bind(number(*offset))
                .bind(i64::from(*index))
                .bind(number(*epoch))
                .bind(seq)
                .bind(at.micros())
                .bind(record::encode(&retry.record).to_vec())
                .execute(&mut *transaction)
                .await
                .map_err(&store)?;
        }
        transaction.commit().await.map_err(&store)?;
        Ok(Some((seq, new.len())))
    }
}

impl Ledger {
    /// The records of an entry of the control log, by position.
    ///
    /// # Errors
    /// The ledger cannot be read, or what is stored is damaged.
    pub async fn retried(&self, seq: i64) -> Result<Vec<Record>, LedgerError> {
        let store = LedgerError::store("read records that go through again");
        let mut decoder = RecordDecoder::default();
        let rows = database::query(
            "SELECT record FROM retries WHERE seq = $1 AND record IS NOT NULL
             ORDER BY tenant, source, origin, record_offset, record_index, reject_epoch",
        )
        .bind(seq)
        .fetch_all(&mut *self.writer().await)
        .await
        .map_err(&store)?;
        let decoded = rows.iter().map(|row| {
            let bytes: Vec<u8> = row.try_get(0).map_err(&store)?;
            decoder.decode(0, bytes.into()).map_err(|error| store(sqlx::Error::Decode(error.into())))
        });
        decoded.collect()
    }
}

impl Reader {
    /// Which of these rejects go, or went, through again: the entry of the control log, and when it was asked for.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn retries(&self, keys: &[RejectKey]) -> Result<BTreeMap<RejectKey, (i64, Time)>, LedgerError> {
        let mut connection = self.pool.acquire().await.map_err(LedgerError::store("read what went through again"))?;
        // A folder of before has no such table.
        if !schema::has_table(&mut connection, "retries").await? {
            return Ok(BTreeMap::new());
        }
        known(&mut connection, keys).await
    }
}

async fn known(
    connection: &mut Connection<'_>,
    keys: &[RejectKey],
) -> Result<BTreeMap<RejectKey, (i64, Time)>, LedgerError> {
    let store = LedgerError::store("read what went through again");
    let rows = database::query(
        "SELECT r.tenant, r.source, r.origin, r.record_offset, r.record_index, r.reject_epoch, r.seq, r.at
         FROM json_each($1) AS k JOIN retries AS r
           ON r.tenant = k.value->>0 AND r.source = k.value->>1 AND r.origin = k.value->>2
          AND r.record_offset = CAST(k.value->>3 AS BIGINT) AND r.record_index = CAST(k.value->>4 AS BIGINT)
          AND r.reject_epoch = CAST(k.value->>5 AS BIGINT)",
    )
    .bind(Value::from_iter(keys.iter().map(|key| json!(key))).to_string())
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    let unsigned = |value: i64| u64::try_from(value).unwrap_or_default();
    rows.iter()
        .map(|row| {
            let key = (
                row.try_get(0)?,
                row.try_get(1)?,
                row.try_get(2)?,
                unsigned(row.try_get(3)?),
                u32::try_from(row.try_get::<i64, _>(4)?).unwrap_or_default(),
                unsigned(row.try_get(5)?),
            );
            Ok((key, (row.try_get(6)?, Time::from_micros(row.try_get(7)?))))
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(store)
}

/// Lets go of the records whose epochs need no replay any more: those up to the control log's position in `epoch`.
pub(crate) async fn trim(connection: &mut Connection<'_>, epoch: Epoch) -> Result<(), LedgerError> {
    database::query(
        "UPDATE retries SET record = NULL
         WHERE record IS NOT NULL AND seq <= (SELECT CAST(record->>'control' AS BIGINT) FROM epochs WHERE epoch = $1)",
    )
    .bind(number(epoch))
    .execute(connection)
    .await
    .map(drop)
    .map_err(LedgerError::store("let go of records that went through again"))
}
