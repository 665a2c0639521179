//! What is shown of an attack: phases that models, rules and both surface, and the incidents in which they lie.
//!
//! The rule is one that anybody could write before seeing an alert: `first_seen` of docs/correlations.md, a signature that a
//! host has not had for half a day. Incidents are those of docs/incidents.md: alerts at most a day apart that share a host or
//! an address. What a draw of as many alerts would surface stands beside, because every alert in the time of a phase counts as
//! one of it, whatever raised it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cf_models::{
    ModelError,
    table::{Cells, Texts},
    train::Prepared,
};

use crate::say;

/// Seconds that a signature must have been away from a host.
const WITHIN_S: f64 = 43_200.0;
/// The longest gap between two alerts of a host that still connects them.
const INCIDENT_S: f64 = 86_400.0;
/// The longest gap between two alerts of any hosts that would connect an attack which goes from host to host.
const CAMPAIGN_S: f64 = 900.0;

/// The alerts of one scenario, in order of time.
struct Scene {
    /// Rows, by time.
    order: Vec<usize>,
    times: Vec<f64>,
    hosts: Texts,
    addresses: Texts,
    signatures: Texts,
}

/// Pairs of scenario and phase, how many of them are surfaced by whom, and in how many incidents attacks lie.
#[derive(Default)]
pub(crate) struct Shown {
    pairs: usize,
    by_models: usize,
    by_rules: usize,
    by_both: usize,
    by_chance: f64,
    /// What nobody surfaces.
    missed: Vec<String>,
    incidents: Vec<usize>,
    /// The same, if alerts of all hosts at most a quarter of an hour apart hung together, too.
    campaigns: Vec<usize>,
}

impl Scene {
    fn of(test: &Prepared) -> Result<Scene, ModelError> {
        let texts = |name: &str| Ok::<Texts, ModelError>(test.table.need(name, "a column of alerts")?.cells.classes());
        let Cells::Numbers(times) = &test.table.need("time", "the time")?.cells else {
            return Err(ModelError::Setting { what: "the alerts".to_owned(), why: "no times".to_owned() });
        };
        let mut order: Vec<usize> = (0..test.table.rows).collect();
        order.sort_by(|&a, &b| times[a].total_cmp(&times[b]));
        let (hosts, addresses, signatures) = (texts("host")?, texts("ip")?, texts("short")?);
        Ok(Scene { order, times: times.clone(), hosts, addresses, signatures })
    }

    /// Alerts whose signature their host has not had within half a day, if it had any other.
    fn first_seen(&self) -> Vec<bool> {
        let mut last: HashMap<(u32, u32), f64> = HashMap::new();
        let mut alive: HashMap<u32, f64> = HashMap::new();
        let mut new = vec![false; self.times.len()];
        for &row in &self.order {
            let (now, host) = (self.times[row], self.hosts.codes[row]);
            let before = last.insert((host, self.signatures.codes[row]), now);
            let known = alive.insert(host, now).is_some_and(|at| now - at <= WITHIN_S);
            new[row] = known && before.is_none_or(|at| now - at > WITHIN_S);
        }
        new
    }

    /// The incident of each shown alert: the first row of it. By host and address, or by time alone.
    fn incidents(&self, shown: &[bool], by_time: bool) -> BTreeMap<usize, usize> {
        let mut parent: Vec<usize> = (0..shown.len()).collect();
        let anywhere = vec![0; shown.len()];
        let links: Vec<(&[u32], f64)> = if by_time {
            vec![(&anywhere, CAMPAIGN_S)]
        } else {
            vec![(&self.hosts.codes, INCIDENT_S), (&self.addresses.codes, INCIDENT_S)]
        };
        for (entities, gap_s) in links {
            let mut last: HashMap<u32, usize> = HashMap::new();
            for &row in self.order.iter().filter(|&&row| shown[row]) {
                let before = last.insert(entities[row], row);
                if let Some(before) = before.filter(|&before| self.times[row] - self.times[before] <= gap_s) {
                    let (a, b) = (root(&mut parent, before), root(&mut parent, row));
                    parent[a.max(b)] = a.min(b);
                }
            }
        }
        (0..shown.len()).filter(|&row| shown[row]).map(|row| (row, root(&mut parent, row))).collect()
    }
}

fn root(parent: &mut [usize], mut of: usize) -> usize {
    while parent[of] != of {
        parent[of] = parent[parent[of]];
        of = parent[of];
    }
    of
}

impl Shown {
    /// Adds a scenario: its alerts, and which of them a model calls worth a person.
    pub(crate) fn add(&mut self, name: &str, test: &Prepared, by_model: &[bool]) -> Result<(), ModelError> {
        let scene = Scene::of(test)?;
        let by_rule = scene.first_seen();
        let both: Vec<bool> = by_model.iter().zip(&by_rule).map(|(model, rule)| *model || *rule).collect();
        let positive = &test.labels.positive;
        let classes = &test.labels.classes;
        let benign = positive.iter().filter(|is| !**is).count().max(1) as f64;
        let share = |shown: &[bool]| {
            shown.iter().zip(positive).filter(|(shown, positive)| **shown && !**positive).count() as f64 / benign
        };
        let (of_models, of_rules, of_both) = (share(by_model), share(&by_rule), share(&both));
        for (code, phase) in classes.values.iter().enumerate() {
            let rows: Vec<usize> =
                (0..both.len()).filter(|&row| positive[row] && classes.codes[row] as usize == code).collect();
            if rows.is_empty() {
                continue;
            }
            let found = |shown: &[bool]| rows.iter().any(|&row| shown[row]);
            self.pairs += 1;
            self.by_models += usize::from(found(by_model));
            self.by_rules += usize::from(found(&by_rule));
            self.by_both += usize::from(found(&both));
            self.by_chance += 1.0 - (1.0 - of_both).powf(rows.len() as f64);
            if !found(&both) {
                self.missed.push(format!("{name} {phase}"));
            }
        }
        let counted = |by_time: bool| {
            let incidents = scene.incidents(&both, by_time);
            let all: BTreeSet<usize> = incidents.values().copied().collect();
            let attacks: BTreeSet<usize> =
                incidents.iter().filter(|(row, _)| positive[**row]).map(|(_, incident)| *incident).collect();
            (all.len(), attacks.len())
        };
        let (by_host, by_time) = (counted(false), counted(true));
        say(&format!(
            "  shown of benign alerts: by the model {:.2} %, by the rule {:.2} %, by both {:.2} %; {} of {} incidents have the \
             attack, by time {} of {}",
            100.0 * of_models,
            100.0 * of_rules,
            100.0 * of_both,
            by_host.1,
            by_host.0,
            by_time.1,
            by_time.0
        ));
        self.incidents.push(by_host.1);
        self.campaigns.push(by_time.1);
        Ok(())
    }

    /// Says it.
    pub(crate) fn say(&self) {
        let share = |found: usize| found as f64 / self.pairs.max(1) as f64;
        say(&format!(
            "phases surfaced of {}: by models {:.3}, by the rule {:.3}, by both {:.3}; a draw of as many alerts {:.3}",
            self.pairs,
            share(self.by_models),
            share(self.by_rules),
            share(self.by_both),
            self.by_chance / self.pairs.max(1) as f64
        ));
        say(&format!("surfaced by neither: {}", self.missed.join(", ")));
        say(&format!("incidents with the attack, by scenario: {:?}; by time: {:?}", self.incidents, self.campaigns));
    }
}
