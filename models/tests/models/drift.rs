//! The alarm is silent on rows like those of training and goes off soon when they change.

use cf_models::{
    drift::{Adaptive, Watch},
    members::Kind,
};

use crate::support::{Dice, flows, request, table, trained};

/// Rows until the first alarm, and alarms, over rows of a text.
fn alarms(text: &str) -> (Option<usize>, usize) {
    let (_, trained) = trained(&flows(6_000, 1, 0.1), &request(&[Kind::Boost])).unwrap();
    let model = &trained.model;
    let matrix = model.encode(&table(text).unwrap()).unwrap();
    let mut watch = Watch::new(&model.ensemble.reference, model.ensemble.encoder.names());
    let found: Vec<usize> = (0..matrix.rows)
        .filter_map(|row| watch.row(matrix.row(row), model.probability(matrix.row(row))).map(|alarm| alarm.rows))
        .collect();
    (found.first().copied(), found.len())
}

#[test]
fn rows_like_those_of_training_raise_no_alarm() {
    assert_eq!(alarms(&flows(20_000, 2, 0.1)), (None, 0));
}

#[test]
fn a_shift_raises_an_alarm_within_two_thousand_rows() {
    let shifted = flows(2_000, 3, 0.1).replace(",http,", ",quic,");
    assert!(alarms(&shifted).0.is_some_and(|rows| rows <= 2_000));
}

#[test]
fn the_adaptive_window_keeps_what_is_alike_and_drops_what_was() {
    let mut dice = Dice::new(1);
    let mut window = Adaptive::default();
    let cuts = |window: &mut Adaptive, dice: &mut Dice, rows: usize, share: f64| {
        (0..rows).filter(|_| window.add(if dice.unit() < share { 1.0 } else { 0.0 })).count()
    };
    assert_eq!(cuts(&mut window, &mut dice, 20_000, 0.2), 0);
    assert_eq!(window.len(), 20_000);
    assert!(cuts(&mut window, &mut dice, 1_000, 0.6) > 0);
    assert!(window.len() < 3_000, "{}", window.len());
}
