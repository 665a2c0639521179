//! What urls and flows learn from, against a slow reading of the same rows: every event with every alert.

use std::collections::BTreeSet;

use cf_history::{FeatureEntry, PredictionEntry, Subject, VerdictEntry};
use cf_types::{
    EventId, Item,
    fact::{Judgement, Verdict},
    triage::{Answer, Role, Worth},
};
use serde_json::Value;

use super::{training::Dice, *};

const HOSTS: [&str; 3] = ["a", "b", "c"];
const VERSIONS: [&str; 2] = ["one", "two"];
const TASKS: [&str; 2] = ["urls", "flows"];
const WORTHS: [Worth; 3] = [Worth::False, Worth::True, Worth::Unknown];
const BEGIN: i64 = 1_767_225_600;

/// An alert that a model raised, or another rule.
struct Raised {
    id: u8,
    rule: String,
    group: Group,
    first: i64,
    last: i64,
}

/// An event that models were asked about: what they said of each of its cells.
struct Asked {
    id: u8,
    task: &'static str,
    host: &'static str,
    served: &'static str,
    time: Time,
    /// A cell, what the version that serves it said, and what the other said, if it was asked.
    cells: Vec<(String, Worth, Option<Worth>)>,
}

/// What the control log says, in its order.
enum Said {
    Asked(Asked),
    Judged(u8, &'static str, Judgement, bool),
}

struct World {
    alerts: Vec<Raised>,
    said: Vec<Said>,
}

fn group(host: &str, version: &str) -> Group {
    Group::new([("host", host), ("model_version", version)].map(|(field, value)| (Arc::from(field), Arc::from(value))))
}

fn any<T: Copy>(dice: &mut Dice, of: &[T]) -> T {
    of[dice.roll(of.len() as u64) as usize]
}

fn world(seed: u64) -> World {
    let mut dice = Dice(seed);
    let raised = |id: u8, dice: &mut Dice| {
        let first = BEGIN + dice.roll(3) as i64 * 100;
        let rule = if dice.roll(6) == 0 { "guess".to_owned() } else { format!("model-{}", any(dice, &TASKS)) };
        Raised {
            id,
            rule,
            group: group(any(dice, &HOSTS), any(dice, &VERSIONS)),
            first,
            last: first + dice.roll(250) as i64,
        }
    };
    let alerts: Vec<Raised> = (0..24).map(|id| raised(id, &mut dice)).collect();
    let judgements = [Judgement::TruePositive, Judgement::FalsePositive, Judgement::Benign];
    let mut said = Vec::new();
    for id in 0..120 {
        if dice.roll(3) == 0 {
            let (alert, author) = (dice.roll(26) as u8, any(&mut dice, &["alice", "bob"]));
            said.push(Said::Judged(alert, author, any(&mut dice, &judgements), dice.roll(6) > 0));
        }
        let cells = (0..1 + dice.roll(5) / 4).map(|number| {
            // Mostly of one mind.
            let served = if dice.roll(2) == 0 { Worth::True } else { any(&mut dice, &WORTHS) };
            let other = (dice.roll(3) == 0).then(|| any(&mut dice, &WORTHS));
            (format!("http://{id}.example/{}", number / 2), served, other)
        });
        let cells = cells.collect();
        let time = Time::from_seconds(BEGIN + dice.roll(350) as i64).plus_micros(dice.roll(4) as i64 * 250_000);
        let (task, host, served) = (any(&mut dice, &TASKS), any(&mut dice, &HOSTS), any(&mut dice, &VERSIONS));
        said.push(Said::Asked(Asked { id, task, host, served, time, cells }));
    }
    World { alerts, said }
}

fn answer(version: &str, role: Role, verdict: Worth) -> Answer {
    Answer { model: Arc::from(version), role, probability_ppm: 1, verdict, set: vec![], reasons: vec![] }
}

fn revised(raised: &Raised, number: u64, last: i64) -> AlertRevision {
    let mut revision = revision(number, "open", 1);
    revision.alert.id = AlertId([raised.id; 16]);
    revision.alert.rule = Arc::from(raised.rule.as_str());
    revision.alert.group = raised.group.clone();
    (revision.alert.anchor, revision.alert.last_cell) = (raised.first, last);
    revision
}

fn detected(asked: &Asked) -> Detection {
    let rule: Arc<str> = format!("model-{}", asked.task).into();
    let item = Item { rule: Arc::clone(&rule), reference: 0, group: group(asked.host, asked.served), value: None };
    Detection {
        tenant: Tenant::default(),
        rule,
        member: Member {
            time: asked.time,
            id: EventId([asked.id; 16]),
            // What the source calls it is not what models know it by.
            declared_id: asked.id.is_multiple_of(2).then(|| Arc::from("e1")),
            position: Position::default(),
        },
        source: Arc::from("proxy"),
        entities: vec![],
        items: vec![item],
    }
}

/// What one entry of the control log brings: features, predictions, verdicts.
type Rows = (Vec<FeatureEntry>, Vec<PredictionEntry>, Vec<VerdictEntry>);

fn rows(said: &Said, seq: i64, rows: &mut Rows) {
    match said {
        Said::Asked(asked) => {
            let id = EventId([asked.id; 16]).to_string();
            let subject = Subject { tenant: Tenant::default(), id, kind: "event", time: asked.time, seq };
            for (cell, served, other) in &asked.cells {
                rows.0.push(FeatureEntry {
                    subject: subject.clone(),
                    recipe: "url-1".to_owned(),
                    rule: None,
                    signature: None,
                    features: vec![("url".to_owned(), cell.as_str().into())],
                });
                let besides = VERSIONS.iter().find(|version| **version != asked.served).unwrap();
                let both =
                    [Some(answer(asked.served, Role::A, *served)), other.map(|it| answer(besides, Role::Shadow, it))];
                for answer in both.into_iter().flatten() {
                    let (subject, model) = (subject.clone(), asked.task.to_owned());
                    rows.1.push(PredictionEntry { subject, model, answer });
                }
            }
        }
        Said::Judged(alert, author, judgement, is_given) => {
            let at = Time::from_seconds(BEGIN + seq);
            rows.2.push(VerdictEntry {
                tenant: Tenant::default(),
                seq,
                verdict: Verdict { alert: AlertId([*alert; 16]), judgement: *judgement, rule: "a".into(), at },
                given: if *is_given { 1 } else { -1 },
                author: (*author).to_owned(),
                reason: String::new(),
                at,
            });
        }
    }
}

/// Written over several epochs; rows of an epoch in any order, some alerts twice, some detections before their answers.
fn written(history: &Path, world: &World, seed: u64) {
    let mut dice = Dice(seed ^ 77);
    let mut writer = Writer::open(history, HistoryOptions { encoders: 1 }).unwrap();
    let short: Vec<_> = world.alerts.iter().map(|raised| revised(raised, 1, raised.first)).collect();
    writer.write(1, &short).unwrap();
    writer.write(1, &[entry(1)]).unwrap();
    writer.commit(1).unwrap();
    let (mut epoch, mut seq, mut rest) = (1, 0, world.said.as_slice());
    while !rest.is_empty() {
        epoch += 1;
        let (now, later) = rest.split_at((1 + dice.roll(40) as usize).min(rest.len()));
        let mut some = Rows::default();
        let mut detections = Vec::new();
        for one in now {
            seq += 1;
            rows(one, seq, &mut some);
            if let Said::Asked(asked) = one
                && asked.cells.iter().any(|(_, served, _)| *served == Worth::True)
            {
                detections.push(detected(asked));
            }
        }
        if dice.roll(2) == 0 {
            some.0.reverse();
            some.1.reverse();
            some.2.reverse();
            detections.reverse();
        }
        writer.write(epoch, &some.0).unwrap();
        writer.write(epoch, &some.1).unwrap();
        writer.write(epoch, &some.2).unwrap();
        writer.write(epoch, &detections).unwrap();
        if later.is_empty() {
            let whole: Vec<_> = world.alerts.iter().map(|raised| revised(raised, 2, raised.last)).collect();
            writer.write(epoch, &whole).unwrap();
        }
        writer.write(epoch, &[entry(epoch)]).unwrap();
        writer.commit(epoch).unwrap();
        rest = later;
    }
}

/// Event, time, model, alert, label, features.
type Learned = (Time, String, String, String, String, String);

/// The same by trying every event with every alert.
fn expected(world: &World) -> BTreeSet<Learned> {
    let mut learned = BTreeSet::new();
    for (at, said) in world.said.iter().enumerate() {
        let Said::Asked(asked) = said else { continue };
        let row = |cell: &str, alert: String, label: &str| {
            let id = EventId([asked.id; 16]).to_string();
            let features = serde_json::json!({"url": cell}).to_string();
            (asked.time, id, features, asked.task.to_owned(), alert, label.to_owned())
        };
        let served = || asked.cells.iter().map(|(_, served, _)| *served);
        let others = || asked.cells.iter().filter_map(|(.., other)| *other);
        if served().chain(others()).all(|worth| worth == Worth::False) {
            learned.extend(asked.cells.iter().map(|(cell, ..)| row(cell, String::new(), "unjudged")));
        }
        if !served().all(|worth| worth == Worth::True) {
            continue;
        }
        for raised in &world.alerts {
            let fits =
                raised.rule == format!("model-{}", asked.task) && raised.group == group(asked.host, asked.served);
            if !fits || asked.time.cell() < raised.first || asked.time.cell() > raised.last {
                continue;
            }
            let judged = world.said.iter().enumerate().filter_map(|(at, said)| match said {
                Said::Judged(alert, _, judgement, is_given) if *alert == raised.id => Some((at, *judgement, *is_given)),
                _ => None,
            });
            let judged: Vec<(usize, Judgement, bool)> = judged.collect();
            if let (Some((first, ..)), Some((_, judgement, true))) = (judged.first(), judged.last())
                && at < *first
            {
                let alert = AlertId([raised.id; 16]).to_string();
                learned.extend(asked.cells.iter().map(|(cell, ..)| row(cell, alert.clone(), judgement.as_str())));
            }
        }
    }
    learned
}

/// ML-11: alarms of models with the labels that people gave, and ordinary events, whatever the order of rows and epochs.
#[test]
fn what_urls_and_flows_learn_from_is_what_a_slow_reader_finds() {
    let (mut judged, mut ordinary) = (0, 0);
    for seed in 1..=6 {
        let world = world(seed);
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), &world, seed);
        let session = Session::open(dir.path(), Options::default()).unwrap();
        let text = run(&session, named::find("training_events").unwrap().sql, Format::Json).unwrap();
        let read = |line: &str| -> Learned {
            let row: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            (time(&text("time")), text("event_id"), text("features"), text("model"), text("alert_id"), text("verdict"))
        };
        let got: Vec<Learned> = text.lines().map(read).collect();
        let expect: Vec<Learned> = expected(&world).into_iter().collect();
        assert_eq!(got, expect, "seed {seed}: each once, by time");
        ordinary += got.iter().filter(|row| row.5 == "unjudged").count();
        judged += got.iter().filter(|row| row.5 != "unjudged").count();
    }
    assert!(judged > 40 && ordinary > 40, "{judged} {ordinary}");
}
