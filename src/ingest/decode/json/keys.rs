//! The names of members, looked up once: documents of one kind have the same ones.

use cf_types::{Name, field::Names};
use rustc_hash::FxHashMap;

/// Names kept; what comes beyond is looked up each time. Attackers make as many names as they like.
const KEYS_MAX: usize = 16_384;
const PAIRS_MAX: usize = 16_384;
const SLOT_BITS: u32 = 12;
/// The number of a name that is not kept.
pub(crate) const NO_KEY: u32 = u32::MAX;

/// Known names by number, and a table that finds most of them without hashing their whole text.
#[derive(Debug)]
pub(crate) struct Keys {
    slots: Vec<Slot>,
    texts: Vec<Box<str>>,
    names: Vec<Name>,
    by_text: FxHashMap<Box<str>, u32>,
    version: u64,
}

/// The interned names of two members' joined names, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    names: FxHashMap<(u32, u32), Name>,
    version: u64,
}

/// A name's outer bytes and its number.
#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u64,
    tail: u64,
    len: usize,
    key: u32,
}

impl Default for Keys {
    fn default() -> Keys {
        let empty = Slot { head: 0, tail: 0, len: usize::MAX, key: NO_KEY };
        Keys {
            slots: vec![empty; 1 << SLOT_BITS],
            texts: Vec::new(),
            names: Vec::new(),
            by_text: FxHashMap::default(),
            version: 0,
        }
    }
}

impl Keys {
    /// Asks the table of names again, if it has grown.
    pub(crate) fn refresh(&mut self, names: &Names) {
        if self.version == names.version() {
            return;
        }
        self.version = names.version();
        for (name, text) in self.names.iter_mut().zip(&self.texts) {
            *name = names.get_or_unknown(text.as_bytes());
        }
    }

    /// The number of a name, if it is kept.
    #[inline]
    pub(super) fn number(&mut self, text: &str, names: &Names) -> u32 {
        let (head, tail) = ends(text.as_bytes());
        let place = place(head, tail, text.len());
        if let Some(slot) = self.slots.get(place)
            && slot.head == head
            && slot.tail == tail
            && slot.len == text.len()
            // Up to sixteen bytes, head and tail are the whole.
            && (text.len() <= 16 || self.text(slot.key) == text)
        {
            return slot.key;
        }
        self.find(text, names, Slot { head, tail, len: text.len(), key: NO_KEY }, place)
    }

    #[cold]
    fn find(&mut self, text: &str, names: &Names, mut slot: Slot, place: usize) -> u32 {
        slot.key = match self.by_text.get(text) {
            Some(key) => *key,
            None => {
                let Ok(key) = u32::try_from(self.texts.len()) else { return NO_KEY };
                if self.texts.len() >= KEYS_MAX || text.len() > super::super::sink::KEY_BYTES_MAX {
                    return NO_KEY;
                }
                self.texts.push(text.into());
                self.names.push(names.get_or_unknown(text.as_bytes()));
                self.by_text.insert(text.into(), key);
                key
            }
        };
        if let Some(entry) = self.slots.get_mut(place) {
            *entry = slot;
        }
        slot.key
    }

    fn text(&self, key: u32) -> &str {
        usize::try_from(key).ok().and_then(|key| self.texts.get(key)).map_or("", |text| text)
    }

    /// The interned name of a kept one.
    #[inline]
    pub(crate) fn name(&self, key: u32) -> Option<Name> {
        self.names.get(usize::try_from(key).ok()?).copied()
    }
}

impl Pairs {
    /// Forgets all, if the table of names has grown.
    pub(crate) fn refresh(&mut self, names: &Names) {
        if self.version != names.version() {
            self.version = names.version();
            self.names.clear();
        }
    }

    /// The name of two, looked up by `join` if it is not known.
    pub(crate) fn name(&mut self, outer: u32, inner: u32, join: impl FnOnce() -> Name) -> Name {
        if outer == NO_KEY || inner == NO_KEY {
            return join();
        }
        if let Some(name) = self.names.get(&(outer, inner)) {
            return *name;
        }
        if self.names.len() >= PAIRS_MAX {
            self.names.clear();
        }
        let name = join();
        self.names.insert((outer, inner), name);
        name
    }
}

/// The first and the last eight bytes of a text; of a shorter one all bytes, in one way for each length.
#[inline]
fn ends(bytes: &[u8]) -> (u64, u64) {
    if let (Some(head), Some(tail)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return (u64::from_le_bytes(*head), u64::from_le_bytes(*tail));
    }
    if let (Some(head), Some(tail)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return (u64::from(u32::from_le_bytes(*head)), u64::from(u32::from_le_bytes(*tail)));
    }
    (bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 0)
}

#[inline]
fn place(head: u64, tail: u64, len: usize) -> usize {
    let mixed = (head ^ tail.rotate_left(29) ^ u64::try_from(len).unwrap_or(0)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> (64 - SLOT_BITS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_whole_texts() {
        let names = Names::current();
        let mut keys = Keys::default();
        let texts: Vec<String> = (0..60)
            .flat_map(|len| ["a", "b"].map(|one| one.repeat(len)))
            .chain(["12345678x12345678".into(), "12345678y12345678".into(), "a\0".into(), "\0a".into()])
            .collect();
        let numbers: Vec<u32> = texts.iter().map(|text| keys.number(text, &names)).collect();
        for (text, number) in texts.iter().chain(&texts).zip(numbers.iter().chain(&numbers)) {
            assert_eq!(keys.number(text, &names), *number);
            assert_eq!(keys.text(*number), text);
        }
    }

    #[test]
    fn an_attackers_names_take_no_more_room_than_is_set() {
        let names = Names::current();
        let mut keys = Keys::default();
        for number in 0..KEYS_MAX + 1_000 {
            keys.number(&format!("name {number}"), &names);
        }
        assert_eq!(keys.texts.len(), KEYS_MAX);
        assert_eq!(keys.number("another", &names), NO_KEY);
        assert_ne!(keys.number("name 7", &names), NO_KEY);
    }
}
