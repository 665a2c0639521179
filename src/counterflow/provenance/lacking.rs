//! Which facts an alert of the built-in rule of indicators would have needed.

use std::sync::Arc;

use anyhow::Result;
use cf_dataflows::IndicatorTable;
use cf_types::{Cell, Entity, EntityKind, EventId, Fact, FactBody, Member, Position, Time, fact::Indicator};
use serde_json::{Value, json};

use super::{Sources, missing::Missing};

/// Says which indicators name the entity, and whether they hold between two cells.
pub(super) async fn indicators(
    sources: &Sources,
    found: &mut Missing,
    entity: &str,
    (from, to): (Cell, Cell),
) -> Result<()> {
    let entities = entities_of(entity);
    let (mut holding, mut others) = (Vec::new(), Vec::new());
    for (fact, entry) in sources.reader.facts().await? {
        let FactBody::Indicator(indicator) = &fact.body else { continue };
        if !names(&fact, indicator, &entities) {
            continue;
        }
        let begins = indicator.from.is_none_or(|begin| begin.cell() <= to);
        let lasts = indicator.until.is_none_or(|end| from < end.cell());
        let list = if begins && lasts { &mut holding } else { &mut others };
        list.push(json!({ "seq": entry.seq, "author": entry.author, "at": entry.at, "fact": fact.body }));
    }
    let (code, text, detail) = match (holding.is_empty(), others.is_empty()) {
        (false, _) => {
            let text =
                "indicators that name it hold in this time: events of before them are looked up once, 30 days back";
            ("fact_in_force", text, Value::Array(holding))
        }
        (true, false) => ("fact_lacking", "the indicators that name it do not hold in this time", Value::Array(others)),
        (true, true) => ("fact_lacking", "no indicator names it", Value::Null),
    };
    found.say(code, format!("{entity}: {text}"), detail);
    Ok(())
}

/// What the words may mean.
fn entities_of(entity: &str) -> Vec<Entity> {
    match entity.parse() {
        Ok(entity) => vec![entity],
        Err(_) => {
            let kinds = [EntityKind::Address, EntityKind::Domain, EntityKind::FileHash];
            kinds.into_iter().filter_map(|kind| Entity::of(kind, entity)).collect()
        }
    }
}

/// Whether an indicator names one of the entities, whenever it holds.
fn names(fact: &Fact, indicator: &Indicator, entities: &[Entity]) -> bool {
    let always = Indicator { from: None, until: None, ..indicator.clone() };
    let mut table = IndicatorTable::default();
    table.change(&Fact { tenant: fact.tenant.clone(), body: FactBody::Indicator(always) }, 1);
    let position = Position { origin: "".into(), offset: 0, line: 0, index: 0 };
    let member = Member { time: Time::from_seconds(0), id: EventId([0; 16]), declared_id: None, position };
    let mut met = Vec::new();
    table.find((&fact.tenant, &Arc::from("")), &member, entities.to_vec(), std::iter::empty(), &mut met);
    !met.is_empty()
}
