//! Types that people read as JSON without what is empty, and that travel between processes in compact formats.
//!
//! A compact format has no names: what is left out there would shift all that follows. So in such a format a value of these
//! types is one text, its JSON, read as JSON is read everywhere.

/// Gives types whose derives are `#[serde(remote = "Self")]` their serde: as derived where people read, else as a text.
macro_rules! text_where_compact {
    ($($name:ident),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return $name::serialize(self, serializer);
                }
                let mut text = Vec::new();
                let written = $name::serialize(self, &mut serde_json::Serializer::new(&mut text));
                written.map_err(serde::ser::Error::custom)?;
                serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                if deserializer.is_human_readable() {
                    return $name::deserialize(deserializer);
                }
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                let mut json = serde_json::Deserializer::from_str(&text);
                $name::deserialize(&mut json).map_err(serde::de::Error::custom)
            }
        }
    )+};
}

pub(crate) use text_where_compact;
