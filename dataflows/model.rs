//! Detections by models: what was said of an event beside the graph becomes a detection of a built-in rule (ML).
//!
//! The rule's version is the model's: it stands in the group, so alerts of two versions are two, and each says which one
//! it is from. Who is spoken of is in the group as with plain rules: the first host, user and address.

use std::sync::Arc;

use cf_types::{Condition, Detection, EntityKind, EpisodeRule, Group, Item, Level, Predicate, scored::ScoredEvent};

/// Repeats of one group within this many seconds are one alert, as with plain rules.
const FOLD_S: i64 = 3_600;
/// Tasks whose models are asked about events: name, rule, title of its alerts, tag.
const TASKS: [(&str, &str, &str, &str); 2] = [
    ("urls", "model-urls", "URL looks like phishing to a model", "attack.initial-access"),
    ("flows", "model-flows", "Flow looks like an attack to a model", ""),
];

/// The rules of all tasks.
pub(crate) fn rules() -> impl Iterator<Item = EpisodeRule> {
    TASKS.into_iter().map(|(_, id, title, tag)| {
        let id = Arc::<str>::from(id);
        EpisodeRule {
            references: vec![Arc::clone(&id)],
            id,
            title: Arc::from(title),
            // A guess by the look of one event: a person should see it, nothing should happen because of it alone.
            level: Level::Medium,
            tags: Some(tag).filter(|tag| !tag.is_empty()).map(Arc::from).into_iter().collect(),
            timespan: FOLD_S,
            predicate: Predicate::EventCount(Condition::at_least(1)),
            alerts: true,
            chained: Vec::new(),
        }
    })
}

/// Whether it is the rule of a task.
pub(crate) fn is_rule(id: &str) -> bool {
    TASKS.iter().any(|(_, rule, ..)| *rule == id)
}

/// The detection that a positive answer is; `None` of others.
#[must_use]
pub fn model_detection(task: &str, event: &ScoredEvent) -> Option<Detection> {
    let (_, rule, ..) = TASKS.iter().find(|(name, ..)| *name == task).filter(|_| event.is_positive())?;
    let rule = Arc::<str>::from(*rule);
    let first =
        |kind: EntityKind| event.entities.iter().find(|entity| entity.kind == kind).map(|e| Arc::clone(&e.value));
    let who = [
        ("domain", first(EntityKind::Domain).filter(|_| task == "urls")),
        ("host", first(EntityKind::Host)),
        ("user", first(EntityKind::User)),
        ("source_ip", first(EntityKind::Address)),
    ];
    let who = who.into_iter().filter_map(|(field, value)| Some((Arc::from(field), value?)));
    let version = (Arc::from("model_version"), Arc::clone(&event.answer.model));
    Some(Detection {
        tenant: event.tenant.clone(),
        rule: Arc::clone(&rule),
        member: event.member.clone(),
        source: Arc::clone(&event.source),
        entities: event.entities.clone(),
        items: vec![Item { rule, reference: 0, group: Group::new(who.chain([version])), value: None }],
    })
}

#[cfg(test)]
mod tests {
    use cf_types::{
        Entity, EventId, Member, Position, Tenant, Time,
        triage::{Answer, Role, Worth},
    };

    use super::*;

    fn event(verdict: Worth, role: Role) -> ScoredEvent {
        let entities =
            [(EntityKind::Host, "web01"), (EntityKind::Domain, "b.example"), (EntityKind::Domain, "a.example")];
        ScoredEvent {
            tenant: Tenant::default(),
            source: Arc::from("proxy"),
            member: Member {
                time: Time::from_seconds(1),
                id: EventId([1; 16]),
                declared_id: None,
                position: Position::default(),
            },
            entities: entities.iter().filter_map(|(kind, value)| Entity::of(*kind, value)).collect(),
            cells: [(Arc::from("url"), "http://b.example/login".into())].into_iter().collect(),
            answer: Answer {
                model: Arc::from("0123456789ab"),
                role,
                probability_ppm: 990_000,
                verdict,
                set: vec![true],
                reasons: Vec::new(),
            },
            others: Vec::new(),
        }
    }

    #[test]
    fn a_positive_served_answer_is_a_detection_of_the_tasks_rule_with_the_models_version() {
        let detection = model_detection("urls", &event(Worth::True, Role::Champion)).unwrap();
        let fields: Vec<(&str, &str)> = detection.items[0].group.iter().collect();
        assert_eq!(fields, [("domain", "b.example"), ("host", "web01"), ("model_version", "0123456789ab")]);
        assert_eq!((&*detection.rule, &*detection.items[0].rule), ("model-urls", "model-urls"));
        let flow = model_detection("flows", &event(Worth::True, Role::Champion)).unwrap();
        let fields: Vec<(&str, &str)> = flow.items[0].group.iter().collect();
        assert_eq!(fields, [("host", "web01"), ("model_version", "0123456789ab")]);
        for rule in [detection.rule, flow.rule] {
            assert!(crate::is_builtin(&rule) && crate::builtin().iter().any(|builtin| builtin.id == rule));
        }
    }

    #[test]
    fn what_is_not_positive_or_not_served_is_none() {
        for (verdict, role) in
            [(Worth::False, Role::Champion), (Worth::Unknown, Role::Champion), (Worth::True, Role::Shadow)]
        {
            assert_eq!(model_detection("urls", &event(verdict, role)), None);
        }
        assert_eq!(model_detection("triage", &event(Worth::True, Role::Champion)), None);
    }
}
