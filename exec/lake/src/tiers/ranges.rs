//! Which byte ranges of which version of which object are held, and where; both tiers' index.
//!
//! Invariants: an object's ranges are of one version, never empty, and never overlap.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use object_store::path::Path;

use crate::read::ObjectRef;

/// One held range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held<T> {
    pub(super) range: Range<u64>,
    pub(super) place: T,
}

#[derive(Debug)]
struct Object<T> {
    version: String,
    /// By first byte: the end, and the place.
    by_start: BTreeMap<u64, (u64, T)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ranges<T> {
    by_store: HashMap<Arc<str>, HashMap<Path, Object<T>>>,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self {
            by_store: HashMap::new(),
        }
    }
}

/// What of a new range is worth holding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room<T> {
    /// Of the range, what no range that stays has; none when everything is held.
    pub(super) range: Option<Range<u64>>,
    /// Ranges that went: of an old version, or within the new one.
    pub(super) dropped: Vec<T>,
}

impl<T: Clone> Ranges<T> {
    fn object(&self, store: &str, object: &ObjectRef) -> Option<&Object<T>> {
        let found = self.by_store.get(store)?.get(&object.location)?;
        (found.version == object.version).then_some(found)
    }

    /// The held ranges that together contain this one, in order; none when a byte is missing.
    pub(super) fn covering(&self, store: &str, object: &ObjectRef, range: &Range<u64>) -> Option<Vec<Held<T>>> {
        let by_start = &self.object(store, object)?.by_start;
        let (&first, _) = by_start.range(..=range.start).next_back()?;
        let mut covered_to = first;
        let mut found = Vec::new();
        for (&start, (end, place)) in by_start.range(first..) {
            if start > covered_to {
                return None;
            }
            covered_to = *end;
            if *end > range.start {
                let (range, place) = (start..*end, place.clone());
                found.push(Held { range, place });
            }
            if covered_to >= range.end {
                return (!found.is_empty()).then_some(found);
            }
        }
        None
    }

    /// Makes room for a range: drops those of other versions and those within it, and trims it by those that overlap its ends.
    pub(super) fn make_room(&mut self, store: &str, object: &ObjectRef, range: &Range<u64>) -> Room<T> {
        let known = (self.by_store.get_mut(store)).and_then(|objects| objects.get_mut(&object.location));
        let Some(known) = known else {
            let range = (!range.is_empty()).then(|| range.clone());
            let dropped = Vec::new();
            return Room { range, dropped };
        };
        let room = if known.version == object.version {
            make_room_among(&mut known.by_start, range)
        } else {
            let old = std::mem::take(&mut known.by_start);
            Room {
                range: (!range.is_empty()).then(|| range.clone()),
                dropped: old.into_values().map(|(_, place)| place).collect(),
            }
        };
        if known.by_start.is_empty() {
            self.remove_object(store, &object.location);
        }
        room
    }

    /// Adds a range for which [`Ranges::make_room`] made room just now.
    pub(super) fn insert(&mut self, store: &Arc<str>, object: &ObjectRef, range: Range<u64>, place: T) {
        let objects = self.by_store.entry(Arc::clone(store)).or_default();
        let known = objects.entry(object.location.clone()).or_insert_with(|| Object {
            version: object.version.clone(),
            by_start: BTreeMap::new(),
        });
        debug_assert_eq!(known.version, object.version);
        known.by_start.insert(range.start, (range.end, place));
    }

    /// Removes the range that begins there, if it is the one that is meant.
    pub(super) fn remove(&mut self, store: &str, path: &Path, start: u64, is_meant: impl FnOnce(&T) -> bool) {
        let Some(objects) = self.by_store.get_mut(store) else {
            return;
        };
        let Some(known) = objects.get_mut(path) else { return };
        if known.by_start.get(&start).is_some_and(|(_, place)| is_meant(place)) {
            known.by_start.remove(&start);
        }
        if known.by_start.is_empty() {
            self.remove_object(store, path);
        }
    }

    fn remove_object(&mut self, store: &str, path: &Path) {
        if let Some(objects) = self.by_store.get_mut(store) {
            objects.remove(path);
            if objects.is_empty() {
                self.by_store.remove(store);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_store.clear();
    }
}

fn make_room_among<T>(by_start: &mut BTreeMap<u64, (u64, T)>, range: &Range<u64>) -> Room<T> {
    let mut room = range.clone();
    let mut dropped = Vec::new();
    if let Some((_, (end, _))) = by_start.range(..=room.start).next_back() {
        room.start = room.start.max((*end).min(room.end));
    }
    if let Some((&start, (end, _))) = by_start.range(room.clone()).next_back()
        && *end > room.end
    {
        room.end = start;
    }
    let within: Vec<(u64, u64)> = (by_start.range(room.clone()))
        .map(|(start, (end, _))| (*start, *end))
        .collect();
    let held_bytes: u64 = within.iter().map(|(start, end)| end - start).sum();
    if room.is_empty() || held_bytes == room.end - room.start {
        return Room { range: None, dropped };
    }
    for (start, _) in within {
        dropped.extend(by_start.remove(&start).map(|(_, place)| place));
    }
    let range = Some(room);
    Room { range, dropped }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn object(version: &str) -> ObjectRef {
        ObjectRef {
            location: Path::from("o"),
            size_bytes: 1000,
            e_tag: None,
            version: version.to_owned(),
        }
    }

    #[test]
    fn parts_answer_for_the_whole() {
        let (mut ranges, store, one) = (Ranges::default(), Arc::from("s"), object("1"));
        for (id, range) in [0..10, 10..30, 40..50].into_iter().enumerate() {
            assert_eq!(ranges.make_room(&store, &one, &range).range, Some(range.clone()));
            ranges.insert(&store, &one, range, id);
        }
        let places = |range: Range<u64>| {
            let found = ranges.covering(&store, &one, &range)?;
            Some(found.into_iter().map(|held| held.place).collect::<Vec<_>>())
        };
        assert_eq!(places(0..30), Some(vec![0, 1]));
        assert_eq!(places(10..11), Some(vec![1]));
        assert_eq!(places(29..30), Some(vec![1]));
        assert_eq!(places(29..31), None);
        assert_eq!(places(45..50), Some(vec![2]));
        assert_eq!(places(50..51), None);
        assert_eq!(ranges.covering(&store, &object("2"), &(0..1)), None);
        assert_eq!(ranges.covering("t", &one, &(0..1)), None);
    }

    #[test]
    fn a_new_version_drops_the_old_one() {
        let (mut ranges, store) = (Ranges::default(), Arc::from("s"));
        ranges.insert(&store, &object("1"), 0..10, 7);
        let room = ranges.make_room(&store, &object("2"), &(20..30));
        assert_eq!(room.dropped, [7]);
        assert_eq!(ranges.covering(&store, &object("1"), &(0..1)), None);
        ranges.insert(&store, &object("2"), 20..30, 8);
        ranges.remove(&store, &Path::from("o"), 20, |place| *place == 7);
        assert!(ranges.covering(&store, &object("2"), &(20..30)).is_some());
        ranges.remove(&store, &Path::from("o"), 20, |place| *place == 8);
        assert!(ranges.by_store.is_empty());
    }

    #[test]
    fn random_ranges_never_overlap_and_cover_what_was_put() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let (store, one): (Arc<str>, _) = (Arc::from("s"), object("1"));
        for _ in 0..300 {
            let mut ranges = Ranges::default();
            let mut model = [false; 200];
            for id in 0..30 {
                let start = random.random_range(0..190u64);
                let range = start..start + random.random_range(1..10);
                let room = ranges.make_room(&store, &one, &range);
                if let Some(room) = room.range {
                    assert!(range.start <= room.start && room.end <= range.end);
                    ranges.insert(&store, &one, room, id);
                }
                model[range.start as usize..range.end as usize].fill(true);
                let known = &ranges.by_store[&store][&one.location].by_start;
                let mut held = [0; 200];
                for (&start, &(end, _)) in known {
                    held[start as usize..end as usize]
                        .iter_mut()
                        .for_each(|count| *count += 1);
                }
                assert!(
                    held.iter()
                        .zip(&model)
                        .all(|(held, model)| *held == usize::from(*model))
                );
                let start = random.random_range(0..190u64);
                let asked = start..start + random.random_range(1..10);
                let all = model[asked.start as usize..asked.end as usize].iter().all(|held| *held);
                let found = ranges.covering(&store, &one, &asked);
                assert_eq!(found.is_some(), all);
                for held in found.iter().flatten() {
                    assert!(held.range.start < asked.end && asked.start < held.range.end);
                }
            }
        }
    }
}
