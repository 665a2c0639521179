//! Desired actions: what policies want done because of alerts.
//!
//! In: changes of the alerts that remain, and facts. Out: changes of one row per (action, target, alert); when several
//! policies want the same because of the same alert, the longest time counts. Key: tenant, then action, target and
//! alert. Memory: the alerts with an address, and the policies. What is done about it is the reconciler's.

use cf_types::{ActionId, ActionKind, Alert, DesiredAction, Entity, EntityKind, Epoch, Fact, FactBody, fact::Policy};
use differential_dataflow::VecCollection;

/// Meets alerts with policies.
pub(crate) fn desire<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
) -> VecCollection<'s, Epoch, DesiredAction, isize> {
    let policies = facts.flat_map(|fact| match fact.body {
        FactBody::Policy(policy) => Some((fact.tenant, policy)),
        FactBody::Allow { .. } => None,
    });
    // Without its gauges: an alert's count may change a thousand times without a word to the policies.
    let alerts = alerts.filter(|alert| !targets(alert).is_empty()).map(|alert| {
        (alert.tenant.clone(), Alert { last_cell: alert.anchor, count: 0, reference_counts: Vec::new(), peak: 0, ..alert })
    });
    alerts
        .join_map(policies, |_, alert, policy| if fits(policy, alert) { wishes(policy, alert) } else { Vec::new() })
        .flat_map(|wishes| wishes)
        .map(|(wish, ttl_s)| ((wish.tenant.clone(), wish.id, wish.alert), (ttl_s, wish)))
        .reduce(|_, wishes, rows| {
            if let Some(((ttl_s, wish), _)) = wishes.last() {
                rows.push((DesiredAction { ttl_s: *ttl_s, ..wish.clone() }, 1isize));
            }
        })
        .map(|(_, wish)| wish)
}

/// Whether all conditions of a policy hold.
fn fits(policy: &Policy, alert: &Alert) -> bool {
    alert.level >= policy.level_min
        && (policy.rules.is_empty() || policy.rules.contains(&alert.rule))
        && (policy.tags.is_empty() || policy.tags.iter().any(|tag| alert.tags.contains(tag)))
}

/// The entities that actions apply to.
fn targets(alert: &Alert) -> Vec<&Entity> {
    alert.entities.iter().filter(|entity| entity.kind == EntityKind::Address).collect()
}

fn wishes(policy: &Policy, alert: &Alert) -> Vec<(DesiredAction, u32)> {
    let ActionKind::BlockAddress = policy.action;
    let wish = |entity: &Entity| DesiredAction {
        tenant: alert.tenant.clone(),
        id: ActionId::of(&alert.tenant, policy.action.as_str(), &entity.value),
        kind: policy.action,
        target: entity.value.clone(),
        ttl_s: policy.ttl_s,
        alert: alert.id,
        anchor: alert.anchor,
    };
    targets(alert).into_iter().map(|entity| (wish(entity), policy.ttl_s)).collect()
}
