//! How bad alerts are and how much risk entities carry, as the ledger has it.

use cf_types::{
    AlertId, Assessment, BlastRadius, Entity, EntityRisk, RiskLevel, Score, Tenant, Time,
    assess::RISK_RULE,
    risk::{Hour, hour_of},
};
use serde::Serialize;
use serde_json::Value;

use super::Reader;
use crate::{LedgerError, database};

/// An entity's risk at a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RiskView {
    /// Whose.
    pub tenant: Tenant,
    /// The entity.
    pub entity: Entity,
    /// Its score.
    pub score: Score,
    /// Its level.
    pub level: RiskLevel,
}

/// An entity's risk with what it is made of and leads to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RiskStory {
    /// The risk.
    #[serde(flatten)]
    pub risk: RiskView,
    /// The event time of it.
    pub at: Time,
    /// Sums of scores by hour, in tenths.
    pub buckets: Vec<(Hour, u64)>,
    /// The alerts that count, the heaviest first; at most 1,000.
    pub contributions: Vec<ContributionView>,
    /// How its level changed, the newest first; at most 1,000.
    pub changes: Vec<LevelChange>,
    /// What can be reached from it, while it has an open alert.
    pub blast_radius: Option<BlastRadius>,
}

/// An alert's assessment in one record (RSK-06): the assessment, what its entities carry and lead to, and its history.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AssessmentStory {
    /// How it is assessed.
    pub assessment: AssessmentView,
    /// Its entities.
    pub entities: Vec<AssessedEntity>,
    /// How it was assessed before, the newest first; at most 1,000.
    pub before: Vec<AssessmentView>,
}

/// What an entity of an alert carries and leads to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AssessedEntity {
    /// The entity and its risk.
    #[serde(flatten)]
    pub risk: RiskView,
    /// What can be reached from it, while it has an open alert.
    pub blast_radius: Option<BlastRadius>,
}

/// The level of an entity's risk, and when it came to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LevelChange {
    /// The epoch of the change.
    pub epoch: i64,
    /// When, wall clock.
    pub at: Time,
    /// The level before.
    pub was: String,
    /// The level after.
    pub level: String,
}

/// An alert that counts for an entity's risk.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContributionView {
    /// The alert.
    pub alert_id: String,
    /// Its rule.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// Its state.
    pub state: String,
    /// When it begins, event time.
    pub first: Time,
    /// Its score: what it adds at first.
    pub score: Score,
    /// What is left of that at the time that was asked for, in tenths.
    pub tenths_now: u64,
}

/// How an alert is assessed, and how it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AssessmentView {
    /// The epoch that assessed it so.
    pub epoch: i64,
    /// When, wall clock.
    pub at: Time,
    /// The assessment.
    #[serde(flatten)]
    pub assessment: Assessment,
}

impl Reader {
    /// Entities by risk at the present event time, the riskiest first; those without any are left out.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn risks(&self) -> Result<Vec<RiskView>, LedgerError> {
        let at = self.event_time().await?;
        let mut views: Vec<RiskView> = self.risk().await?.into_iter().map(|risk| view(risk, at)).collect();
        views.retain(|view| view.level != RiskLevel::None);
        views.sort_by(|a, b| b.score.cmp(&a.score).then_with(|| (&a.tenant, &a.entity).cmp(&(&b.tenant, &b.entity))));
        Ok(views)
    }

    /// One entity's risk with its story; `None` if it never had any.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn risk_story(&self, tenant: &Tenant, entity: &Entity) -> Result<Option<RiskStory>, LedgerError> {
        let at = self.event_time().await?;
        let risk = self.risk_of(tenant, entity).await?;
        let changes = self.risk_changes(tenant, entity).await?;
        if risk.buckets.is_empty() && changes.is_empty() {
            return Ok(None);
        }
        let buckets = risk.buckets.clone();
        let contributions = self.contributions(tenant, entity, at).await?;
        let blast_radius = self.blast(tenant, entity).await?;
        Ok(Some(RiskStory { risk: view(risk, at), at, buckets, contributions, changes, blast_radius }))
    }

    /// How an alert is assessed, with its story; `None` if it was not.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn assessment_story(&self, alert: AlertId) -> Result<Option<AssessmentStory>, LedgerError> {
        let mut assessments = self.assessments(alert).await?.into_iter();
        let Some(assessment) = assessments.next() else { return Ok(None) };
        let (at, tenant) = (self.event_time().await?, &assessment.assessment.tenant);
        let mut entities = Vec::new();
        for entity in self.alert_entities(alert).await? {
            let risk = view(self.risk_of(tenant, &entity).await?, at);
            entities.push(AssessedEntity { risk, blast_radius: self.blast(tenant, &entity).await? });
        }
        Ok(Some(AssessmentStory { assessment, entities, before: assessments.collect() }))
    }

    /// The risk of entities, all of them.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn risk(&self) -> Result<Vec<EntityRisk>, LedgerError> {
        let store = LedgerError::store("read risk");
        let rows: Vec<(String, String, String, String)> =
            database::query_as("SELECT tenant, kind, value, buckets FROM risk ORDER BY tenant, kind, value")
                .fetch_all(&self.pool)
                .await
                .map_err(&store)?;
        rows.into_iter()
            .map(|(tenant, kind, value, buckets)| {
                let kind = serde_json::from_value(Value::from(kind)).map_err(LedgerError::damaged("an entity"))?;
                Ok(EntityRisk {
                    tenant: Tenant::new(&tenant),
                    entity: Entity { kind, value: value.into() },
                    buckets: serde_json::from_str(&buckets).map_err(LedgerError::damaged("risk buckets"))?,
                })
            })
            .collect()
    }

    /// How the level of an entity's risk changed, the newest first; at most 1,000.
    ///
    /// # Errors
    /// The ledger cannot be read.
    async fn risk_changes(&self, tenant: &Tenant, entity: &Entity) -> Result<Vec<LevelChange>, LedgerError> {
        let rows: Vec<(i64, i64, String, String)> = database::query_as(
            "SELECT epoch, at, was, level FROM risk_level_changes WHERE tenant = $1 AND kind = $2 AND value = $3
             ORDER BY epoch DESC LIMIT 1000",
        )
        .bind(tenant.as_str())
        .bind(entity.kind.as_str())
        .bind(&*entity.value)
        .fetch_all(&self.pool)
        .await
        .map_err(LedgerError::store("read changes of risk"))?;
        let change = |(epoch, at, was, level)| LevelChange { epoch, at: Time::from_micros(at), was, level };
        Ok(rows.into_iter().map(change).collect())
    }

    /// The alerts that count for an entity's risk at `time`, the heaviest first; at most 1,000, the newest.
    ///
    /// # Errors
    /// The ledger cannot be read.
    async fn contributions(
        &self,
        tenant: &Tenant,
        entity: &Entity,
        time: Time,
    ) -> Result<Vec<ContributionView>, LedgerError> {
        let span_s = EntityRisk::SPAN_HOURS * 3_600;
        let rows: Vec<(String, String, String, String, i64, i64)> = database::query_as(
            "SELECT alert_id, rule, title, state, anchor, score FROM alerts
             WHERE tenant = $1 AND state IN ('open', 'sealed') AND rule <> $2 AND anchor > $3 AND EXISTS (
                 SELECT 1 FROM json_each(content, '$.entities') e
                 WHERE e.value->>'kind' = $4 AND e.value->>'value' = $5)
             ORDER BY anchor DESC, alert_id LIMIT 1000",
        )
        .bind(tenant.as_str())
        .bind(RISK_RULE)
        .bind(time.cell().saturating_sub(span_s))
        .bind(entity.kind.as_str())
        .bind(&*entity.value)
        .fetch_all(&self.pool)
        .await
        .map_err(LedgerError::store("read what counts for a risk"))?;
        let mut views: Vec<ContributionView> = rows
            .into_iter()
            .map(|(alert_id, rule, title, state, anchor, score)| {
                let score = Score::from_tenths(u16::try_from(score).unwrap_or(u16::MAX));
                let alone = vec![(hour_of(anchor), u64::from(score.tenths()))];
                let alone = EntityRisk::new(tenant.clone(), entity.clone(), alone);
                let tenths_now = alone.tenths_at(hour_of(time.cell()), EntityRisk::SPAN_HOURS);
                ContributionView { alert_id, rule, title, state, first: Time::from_seconds(anchor), score, tenths_now }
            })
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.tenths_now));
        Ok(views)
    }

    /// The entities of an alert; none if there is no such alert.
    ///
    /// # Errors
    /// The ledger cannot be read.
    async fn alert_entities(&self, alert: AlertId) -> Result<Vec<Entity>, LedgerError> {
        let content: Option<String> =
            database::query_scalar("SELECT content->'entities' FROM alerts WHERE alert_id = $1")
                .bind(alert.to_string())
                .fetch_optional(&self.pool)
                .await
                .map_err(LedgerError::store("read an alert"))?;
        let entities = content.map(|text| serde_json::from_str(&text)).transpose();
        Ok(entities.map_err(LedgerError::damaged("an alert's content"))?.unwrap_or_default())
    }

    /// The risk of one entity; without buckets if it has none.
    async fn risk_of(&self, tenant: &Tenant, entity: &Entity) -> Result<EntityRisk, LedgerError> {
        let buckets: Option<String> =
            database::query_scalar("SELECT buckets FROM risk WHERE tenant = $1 AND kind = $2 AND value = $3")
                .bind(tenant.as_str())
                .bind(entity.kind.as_str())
                .bind(&*entity.value)
                .fetch_optional(&self.pool)
                .await
                .map_err(LedgerError::store("read a risk"))?;
        let buckets = buckets.map(|text| serde_json::from_str(&text)).transpose();
        let buckets = buckets.map_err(LedgerError::damaged("risk buckets"))?.unwrap_or_default();
        Ok(EntityRisk { tenant: tenant.clone(), entity: entity.clone(), buckets })
    }

    /// What can be reached from an entity, while it has an open alert.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn blast(&self, tenant: &Tenant, entity: &Entity) -> Result<Option<BlastRadius>, LedgerError> {
        let content: Option<String> =
            database::query_scalar("SELECT content FROM blast WHERE tenant = $1 AND kind = $2 AND value = $3")
                .bind(tenant.as_str())
                .bind(entity.kind.as_str())
                .bind(&*entity.value)
                .fetch_optional(&self.pool)
                .await
                .map_err(LedgerError::store("read a blast radius"))?;
        content.map(|text| serde_json::from_str(&text)).transpose().map_err(LedgerError::damaged("a blast radius"))
    }

    /// How far event time has come: the last watermark, or the begin of the newest alert if there is none.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn event_time(&self) -> Result<Time, LedgerError> {
        let store = LedgerError::store("read the watermark");
        let watermark: Option<i64> =
            database::query_scalar("SELECT max(watermark) FROM epochs").fetch_one(&self.pool).await.map_err(&store)?;
        if let Some(watermark) = watermark {
            return Ok(Time::from_micros(watermark));
        }
        let newest: Option<i64> =
            database::query_scalar("SELECT max(anchor) FROM alerts").fetch_one(&self.pool).await.map_err(&store)?;
        Ok(Time::from_seconds(newest.unwrap_or(0)))
    }

    /// The assessments of an alert, the newest first; at most 1,000.
    ///
    /// # Errors
    /// The ledger cannot be read.
    async fn assessments(&self, alert: AlertId) -> Result<Vec<AssessmentView>, LedgerError> {
        let rows: Vec<(i64, i64, String)> = database::query_as(
            "SELECT epoch, at, content FROM assessments WHERE alert_id = $1 ORDER BY epoch DESC LIMIT 1000",
        )
        .bind(alert.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(LedgerError::store("read assessments"))?;
        rows.into_iter()
            .map(|(epoch, at, content)| {
                let assessment = serde_json::from_str(&content).map_err(LedgerError::damaged("an assessment"))?;
                Ok(AssessmentView { epoch, at: Time::from_micros(at), assessment })
            })
            .collect()
    }
}

/// A risk at the watermark, or at its newest alert if that is later: as the graph has it.
fn view(risk: EntityRisk, at: Time) -> RiskView {
    let now = hour_of(at.cell());
    let score = risk.score_in(risk.newest().map_or(now, |newest| newest.max(now)));
    RiskView { tenant: risk.tenant, entity: risk.entity, score, level: RiskLevel::of(score) }
}
