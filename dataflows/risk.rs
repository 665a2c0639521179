//! The risk of entities: the sum of their alerts' scores by hour of event time.
//!
//! In: changes of the alerts that remain. Out: changes of one row per entity. Key: entity. What the risk is *at* a time
//! is [`EntityRisk::score_at`], so nothing ticks here. Memory: one number per entity and hour with an alert.

use cf_types::{Alert, EntityRisk, Epoch, risk::hour_of};
use differential_dataflow::VecCollection;

/// Sums scores per entity and hour. The score travels as the difference, so that differential sums it up.
pub(crate) fn risk<'s>(alerts: VecCollection<'s, Epoch, Alert, isize>) -> VecCollection<'s, Epoch, EntityRisk, isize> {
    alerts
        .explode(|alert| {
            let (hour, tenths) =
                (hour_of(alert.anchor), isize::from(i16::try_from(alert.score.tenths()).unwrap_or(100)));
            let tenant = alert.tenant;
            alert.entities.into_iter().map(move |entity| (((tenant.clone(), entity), hour), tenths))
        })
        .reduce(|(tenant, entity), hours, rows| {
            let buckets = hours.iter().map(|(hour, tenths)| (**hour, u64::try_from(*tenths).unwrap_or(0))).collect();
            rows.push((EntityRisk { tenant: tenant.clone(), entity: entity.clone(), buckets }, 1isize));
        })
        .map(|(_, row)| row)
}
