//! Text lines: syslog in its forms, access logs, anything.

use cf_types::{Name, Time, TimeBasis};

use super::{
    sink::{Broken, Sink},
    time::Assume,
};

/// What a line says of itself besides its fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found<'a> {
    pub(crate) product: Option<&'a str>,
    pub(crate) category: Option<&'a str>,
    pub(crate) service: Option<&'a str>,
    pub(crate) time: Option<(Time, TimeBasis)>,
}

/// The names that text decoders give.
pub(crate) struct Text {
    message: Name,
}

impl Text {
    pub(crate) fn new() -> Text {
        Text { message: Name::intern("message") }
    }

    /// Decodes a line; never refuses one for not knowing it.
    pub(crate) fn decode<'a>(
        &self,
        line: &'a str,
        _assume: Assume<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<Found<'a>, Broken> {
        sink.text(self.message, line)?;
        Ok(Found::default())
    }
}
