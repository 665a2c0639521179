//! What history says beside the changed rows of an epoch: how an alert is assessed, what an entity's level was before.
//!
//! An alert's revision is written with its assessment even if that came with an earlier epoch. Memory: the assessments of
//! alerts that are not sealed and the levels of entities with a risk; both leave as the graph lets go of them. A pure
//! function of the epochs' rows since the start, which begins with all that stands: so a replay writes the same.

use std::collections::{BTreeMap, BTreeSet};

use cf_history::{FactEntry, RiskChange, VerdictEntry};
use cf_ledger::{ControlEntry, LedgerError};
use cf_types::{AlertId, Assessment, Entity, EntityRisk, EpochOutput, FactBody, RiskLevel, Row, Tenant, Time};

/// What stands after the last epoch.
#[derive(Default)]
pub(crate) struct Standing {
    assessments: BTreeMap<AlertId, Assessment>,
    /// Alerts whose assessment went with the last epoch: their last revision still shows it.
    gone: Vec<AlertId>,
    levels: BTreeMap<(Tenant, Entity), RiskLevel>,
}

impl Standing {
    /// How an alert is assessed after the last epoch; of one that went with it, how it was before.
    pub(crate) fn assessment(&self, alert: AlertId) -> Option<&Assessment> {
        self.assessments.get(&alert)
    }

    /// Takes an epoch in and gives the changes of risk, by entity.
    pub(crate) fn take(&mut self, output: &EpochOutput, at: Time) -> Vec<RiskChange> {
        for alert in std::mem::take(&mut self.gone) {
            self.assessments.remove(&alert);
        }
        let mut came = BTreeSet::new();
        let mut risks: BTreeMap<(Tenant, Entity), Option<EntityRisk>> = BTreeMap::new();
        let mut levels: BTreeMap<(Tenant, Entity), Option<RiskLevel>> = BTreeMap::new();
        for (row, diff) in &output.rows {
            match row {
                Row::Assessment(assessment) if *diff > 0 => {
                    came.insert(assessment.alert);
                    self.assessments.insert(assessment.alert, assessment.clone());
                }
                Row::Assessment(assessment) => self.gone.push(assessment.alert),
                Row::Risk(risk) => {
                    let now = risks.entry((risk.tenant.clone(), risk.entity.clone())).or_default();
                    if *diff > 0 {
                        *now = Some(risk.clone());
                    }
                }
                Row::RiskLevel(level) => {
                    let now = levels.entry((level.tenant.clone(), level.entity.clone())).or_default();
                    if *diff > 0 {
                        *now = Some(level.level);
                    }
                }
                Row::Alert(_)
                | Row::Incident(_)
                | Row::Desired(_)
                | Row::Suppressed(_)
                | Row::Blast(_)
                | Row::BlastLeftOut(_) => {}
            }
        }
        self.gone.retain(|alert| !came.contains(alert));
        self.risk_changes(risks, &levels, at)
    }

    fn risk_changes(
        &mut self,
        mut risks: BTreeMap<(Tenant, Entity), Option<EntityRisk>>,
        levels: &BTreeMap<(Tenant, Entity), Option<RiskLevel>>,
        at: Time,
    ) -> Vec<RiskChange> {
        let keys: BTreeSet<_> = risks.keys().chain(levels.keys()).cloned().collect();
        keys.into_iter()
            .map(|key| {
                let was = self.levels.get(&key).copied();
                let level = levels.get(&key).copied().unwrap_or(was);
                match level {
                    Some(level) => self.levels.insert(key.clone(), level),
                    None => self.levels.remove(&key),
                };
                let risk = risks.remove(&key).flatten();
                let (tenant, entity) = key;
                RiskChange { tenant, entity, risk, level, was: was.filter(|was| Some(*was) != level), at }
            })
            .collect()
    }
}

/// Entries of the control log as rows of `facts` and, of those that judge alerts, of `verdicts`.
pub(crate) fn control_rows(entries: &[ControlEntry]) -> Result<(Vec<FactEntry>, Vec<VerdictEntry>), LedgerError> {
    let (mut facts, mut verdicts) = (Vec::new(), Vec::new());
    for entry in entries {
        let fact = entry.fact()?;
        facts.push(FactEntry {
            seq: entry.seq,
            kind: entry.kind.clone(),
            fact: fact.as_ref().map(|(fact, _)| fact.body.kind().to_owned()),
            body: entry.body.clone(),
            author: entry.author.clone(),
            reason: entry.reason.clone(),
            at: entry.at,
        });
        if let Some((fact, given)) = fact
            && let FactBody::Verdict(verdict) = fact.body
        {
            verdicts.push(VerdictEntry {
                tenant: fact.tenant,
                seq: entry.seq,
                verdict,
                given,
                author: entry.author.clone(),
                reason: entry.reason.clone(),
                at: entry.at,
            });
        }
    }
    Ok((facts, verdicts))
}

#[cfg(test)]
mod tests {
    use cf_types::{EntityKind, EntityLevel};

    use super::*;

    fn level(level: RiskLevel) -> Row {
        let entity = Entity::of(EntityKind::Host, "web01").unwrap();
        Row::RiskLevel(EntityLevel { tenant: Tenant::default(), entity, level })
    }

    fn take(standing: &mut Standing, rows: Vec<(Row, i64)>) -> Vec<(Option<RiskLevel>, Option<RiskLevel>)> {
        let output = EpochOutput { rows, ..EpochOutput::default() };
        standing.take(&output, Time::MIN).into_iter().map(|change| (change.was, change.level)).collect()
    }

    #[test]
    fn a_level_is_told_with_the_one_before() {
        let mut standing = Standing::default();
        assert_eq!(take(&mut standing, vec![(level(RiskLevel::Low), 1)]), [(None, Some(RiskLevel::Low))]);
        assert_eq!(
            take(&mut standing, vec![(level(RiskLevel::High), 1), (level(RiskLevel::Low), -1)]),
            [(Some(RiskLevel::Low), Some(RiskLevel::High))]
        );
        assert_eq!(take(&mut standing, vec![(level(RiskLevel::High), -1)]), [(Some(RiskLevel::High), None)]);
        assert!(standing.levels.is_empty());
    }

    #[test]
    fn a_judgement_is_a_row_of_its_own() {
        let entry = ControlEntry {
            seq: 3,
            kind: "fact_add".to_owned(),
            body: r#"{"tenant":"default","body":{"verdict":{"alert":"00000000000000000000000000000001","judgement":"benign"}}}"#
                .to_owned(),
            author: "ann".to_owned(),
            reason: "a test".to_owned(),
            at: Time::MIN,
        };
        let other = ControlEntry { seq: 4, kind: "rule".to_owned(), body: "{}".to_owned(), ..entry.clone() };
        let (facts, verdicts) = control_rows(&[entry, other]).unwrap();
        let kinds: Vec<_> = facts.iter().map(|fact| (fact.seq, fact.fact.as_deref())).collect();
        assert_eq!(kinds, [(3, Some("verdict")), (4, None)]);
        assert_eq!(verdicts.iter().map(|verdict| (verdict.seq, verdict.given)).collect::<Vec<_>>(), [(3, 1)]);
    }
}
