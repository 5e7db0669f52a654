//! The object table: from the guest's ids to the host's handles.
//!
//! A guest names objects by 64-bit ids of its own choice. [`Table::view`] gives each decoding
//! thread a [`View`]. It finds the handle of an id without a lock, and knows the object's type and
//! device. Changes ([`Table::insert`], [`Table::remove`]) take a lock and are seen by all views.
//!
//! Real guests count ids up by one. So the slots are an array indexed by the id's low bits, and
//! live objects hardly ever meet in one slot. If they do (a hostile guest can cause it), they go to
//! a map behind the lock.
//!
//! The protocol crate knows how a slot is read while another thread writes it ([`Slot`]). When the
//! array grows, the old one is emptied but kept. Stale views then find nothing in it and refresh
//! themselves.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use hesper_system::share::Share;
use hesper_system::sync::Lock;
use hesper_venus_protocol::runtime::{Front, Resolved, Slot};
use hesper_venus_protocol::vk::HandleType;

use super::departed::Departed;

/// Slots of the first array, as a power of two. Each further array is twice as large.
const FIRST_BITS: u32 = 10;
/// How often the array may double: 2^22 slots at most.
const LEVELS: usize = 13;

/// What is known of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The host's handle, never 0.
    pub(crate) host: u64,
    /// Its `HandleType`, as a number.
    pub(crate) kind: u32,
    /// The ordinal of the device or instance that it belongs to.
    pub(crate) owner: u32,
}

/// Why an object could not be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The id is 0 or names a live object.
    IdTaken,
    /// The budget of objects is used up: the context's, or the guest's.
    TooMany,
    /// The device or instance that it belongs to is gone.
    NoOwner,
}

impl Entry {
    fn of((kind, found): (u32, Resolved)) -> Self {
        Self {
            host: found.handle,
            kind,
            owner: found.owner,
        }
    }

    /// The answer for the decoder, if the object is of that type.
    pub(crate) fn resolved(self, kind: u32) -> Resolved {
        if self.kind != kind {
            return Resolved::UNKNOWN;
        }
        Resolved {
            handle: self.host,
            owner: self.owner,
        }
    }
}

/// What only writers touch.
#[derive(Default)]
struct Writer {
    live: usize,
    /// Objects whose slot was taken.
    overflow: HashMap<u64, Entry>,
    departed: Departed,
}

/// The objects of one context.
pub(crate) struct Table {
    levels: [OnceLock<Box<[Slot]>>; LEVELS],
    level: AtomicUsize,
    writer: Mutex<Writer>,
    /// Command buffers and devices that were taken out so far. Decoders keep the last ones that
    /// they found.
    removals: AtomicU64,
    limit: usize,
    /// What larger arrays are charged to. `None` in tests.
    places: Option<Arc<Share>>,
}

impl Table {
    /// An empty table that takes `limit` objects, as long as `places` has room for its arrays.
    pub(crate) fn within(limit: usize, places: &Arc<Share>) -> Self {
        Self {
            places: Some(Arc::clone(places)),
            ..Self::new(limit)
        }
    }

    /// An empty table that takes `limit` objects.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            places: None,
            levels: std::array::from_fn(|_| OnceLock::new()),
            level: AtomicUsize::new(0),
            writer: Mutex::default(),
            removals: AtomicU64::new(0),
            limit,
        }
    }

    /// A reader for one thread.
    pub(crate) fn view(&self) -> View<'_> {
        View {
            table: self,
            slots: Cell::new(self.slots()),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.locked()
    }

    #[inline]
    fn slots(&self) -> &[Slot] {
        let level = self.level.load(Ordering::Acquire);
        self.levels.get(level).map_or(&[], |slots| {
            slots.get_or_init(|| {
                std::iter::repeat_with(Slot::default)
                    .take(1 << (FIRST_BITS as usize + level))
                    .collect()
            })
        })
    }

    /// Enters an object, unless its owner `is_gone`.
    pub(crate) fn insert(
        &self,
        id: u64,
        entry: Entry,
        is_gone: &AtomicBool,
    ) -> Result<(), Refused> {
        let mut writer = self.writer();
        // Under the lock: who sets the flag calls `remove_owned` after that.
        if is_gone.load(Ordering::Relaxed) {
            return Err(Refused::NoOwner);
        }
        // A driver that returns null has made nothing that could be named.
        if id == 0 || entry.host == 0 {
            return Err(Refused::IdTaken);
        }
        if writer.live >= self.limit {
            return Err(Refused::TooMany);
        }
        let slots = self.slots();
        let has_room = writer.live < slots.len() / 2;
        match slot(slots, id) {
            Some(slot) if slot.id() == 0 && has_room && writer.overflow.is_empty() => {
                slot.put(id, entry.kind, entry.resolved(entry.kind));
                writer.live += 1;
                Ok(())
            }
            _ => self.insert_slowly(&mut writer, id, entry),
        }
    }

    /// Inserts when another object has the slot.
    #[cold]
    fn insert_slowly(&self, writer: &mut Writer, id: u64, entry: Entry) -> Result<(), Refused> {
        if self.find(writer, id).is_some() {
            return Err(Refused::IdTaken);
        }
        if writer.live >= self.slots().len() / 2 && !self.grow(writer) {
            return Err(Refused::TooMany);
        }
        writer.live += 1;
        place(self.slots(), writer, id, entry);
        Ok(())
    }

    /// Takes an object of type `kind` out. `None` when there is none.
    pub(crate) fn remove(&self, id: u64, kind: u32) -> Option<Entry> {
        let mut writer = self.writer();
        let entry = self.find(&writer, id).filter(|entry| entry.kind == kind)?;
        self.take(&mut writer, id, kind);
        Some(entry)
    }

    /// Empties the place of an object.
    fn take(&self, writer: &mut Writer, id: u64, kind: u32) {
        match slot(self.slots(), id).filter(|slot| slot.id() == id) {
            Some(slot) => slot.clear(),
            None => drop(writer.overflow.remove(&id)),
        }
        writer.live -= 1;
        self.count_removal(kind);
    }

    /// Counts a removal, after the object's place is empty: a decoder that sees the new number does
    /// not find the object any more.
    #[inline]
    fn count_removal(&self, kind: u32) {
        if kind == HandleType::CommandBuffer as u32 || kind == HandleType::Device as u32 {
            self.removals.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes exactly this object out. False when it is gone, or another object has its id by now.
    pub(crate) fn remove_exactly(&self, id: u64, kind: u32, host: u64) -> bool {
        self.take_exactly(&mut self.writer(), id, kind, host)
    }

    #[inline]
    fn take_exactly(&self, writer: &mut Writer, id: u64, kind: u32, host: u64) -> bool {
        match slot(self.slots(), id).and_then(|slot| Some((slot, slot.get(id)?))) {
            Some((slot, (found, object))) if found == kind && object.handle == host => {
                slot.clear();
                writer.live -= 1;
                self.count_removal(kind);
                true
            }
            Some(_) => false,
            None => self.remove_slowly(writer, id, kind, host),
        }
    }

    /// Takes exactly this object out, and keeps it among those that are destroyed late. `None` when
    /// it is gone, or another object has its id by now. Returns the one that must be destroyed
    /// instead, if there is one. It belongs to the same device.
    pub(crate) fn depart(&self, id: u64, entry: Entry) -> Option<Option<Entry>> {
        // One lock for both: whoever destroys the device finds the object in one of the two places.
        let mut writer = self.writer();
        if !self.take_exactly(&mut writer, id, entry.kind, entry.host) {
            return None;
        }
        Some(writer.departed.push(id, entry))
    }

    /// The case in which another object has the slot.
    #[cold]
    fn remove_slowly(&self, writer: &mut Writer, id: u64, kind: u32, host: u64) -> bool {
        let is_same = |entry: &Entry| entry.kind == kind && entry.host == host;
        if self.find(writer, id).filter(is_same).is_none() {
            return false;
        }
        self.take(writer, id, kind);
        true
    }

    /// Takes out all objects of a device, in no order. Owner 0 stands for those of no device. The
    /// number says how many the guest had not destroyed; the others were to be destroyed late.
    pub(crate) fn remove_owned(&self, owner: u32) -> (Vec<(u64, Entry)>, usize) {
        let mut writer = self.writer();
        let mut removed: Vec<(u64, Entry)> = writer
            .overflow
            .extract_if(|_, entry| entry.owner == owner)
            .collect();
        for slot in self.slots() {
            if let Some((id, entry)) = read(slot)
                && entry.owner == owner
            {
                slot.clear();
                removed.push((id, entry));
            }
        }
        let live = removed.len();
        writer.live -= live;
        removed.extend(writer.departed.take_owned(owner));
        self.removals.fetch_add(1, Ordering::Release);
        (removed, live)
    }

    /// The id of an entry, by a search through all of them.
    pub(crate) fn id_of(&self, entry: Entry) -> Option<u64> {
        let writer = self.writer();
        let mut slots = self.slots().iter().filter_map(read);
        let in_slot = slots.find(|(_, found)| *found == entry);
        let overflowed = || writer.overflow.iter().find(|(_, found)| **found == entry);
        in_slot
            .map(|(id, _)| id)
            .or_else(|| overflowed().map(|(id, _)| *id))
    }

    /// Finds any object, under the lock.
    fn find(&self, writer: &Writer, id: u64) -> Option<Entry> {
        if id == 0 {
            return None;
        }
        let in_slot = slot(self.slots(), id).and_then(|slot| slot.get(id));
        let in_slot = in_slot.map(Entry::of);
        in_slot.or_else(|| writer.overflow.get(&id).copied())
    }

    /// Moves to an array twice as large, if it is not the largest. False when the guest's budget
    /// has no room for it.
    fn grow(&self, writer: &mut Writer) -> bool {
        let level = self.level.load(Ordering::Relaxed);
        if level + 1 >= LEVELS {
            return true;
        }
        let old = self.slots();
        let more = 2 * old.len() as u64;
        if self
            .places
            .as_ref()
            .is_some_and(|places| !places.take(more))
        {
            return false;
        }
        self.level.store(level + 1, Ordering::Release);
        let new = self.slots();
        let overflowed: Vec<(u64, Entry)> = writer.overflow.drain().collect();
        let kept = old.iter().filter_map(read);
        for (id, entry) in kept.chain(overflowed) {
            place(new, writer, id, entry);
        }
        // A stale view must miss, or it would find objects that are destroyed later.
        old.iter().for_each(Slot::clear);
        true
    }
}

#[inline]
fn slot(slots: &[Slot], id: u64) -> Option<&Slot> {
    // The length is a power of two. A dense counter changes an id's low bits.
    slots.get(id as usize & slots.len().wrapping_sub(1))
}

/// Id and entry of a slot that is not empty. The caller holds the table's lock, so nobody writes.
fn read(slot: &Slot) -> Option<(u64, Entry)> {
    let id = slot.id();
    slot.get(id).map(|found| (id, Entry::of(found)))
}

fn place(slots: &[Slot], writer: &mut Writer, id: u64, entry: Entry) {
    match slot(slots, id).filter(|slot| slot.id() == 0) {
        Some(slot) => slot.put(id, entry.kind, entry.resolved(entry.kind)),
        None => drop(writer.overflow.insert(id, entry)),
    }
}

/// A thread's reader of a [`Table`].
pub(crate) struct View<'a> {
    table: &'a Table,
    slots: Cell<&'a [Slot]>,
}

impl View<'_> {
    /// The object with this id, of any type.
    pub(crate) fn get(&self, id: u64) -> Option<Entry> {
        let found = slot(self.slots.get(), id).and_then(|slot| slot.get(id));
        found.map(Entry::of).or_else(|| self.get_slowly(id))
    }

    /// The same under the lock, also among those that are destroyed late. This view is up to date
    /// afterwards.
    pub(crate) fn get_slowly(&self, id: u64) -> Option<Entry> {
        let writer = self.table.writer();
        self.slots.set(self.table.slots());
        let found = self.table.find(&writer, id);
        found.or_else(|| writer.departed.find(id))
    }

    /// What decoders may read directly.
    pub(crate) fn front(&self) -> Front<'_> {
        Front::new(self.slots.get(), &self.table.removals)
    }
}

#[cfg(test)]
impl Table {
    /// Live objects.
    fn len(&self) -> usize {
        self.writer().live
    }
}

#[cfg(test)]
mod tests {
    use super::super::departed;
    use super::*;

    const KIND: u32 = 9;

    fn entry(host: u64) -> Entry {
        Entry {
            host,
            kind: KIND,
            owner: 1,
        }
    }

    fn insert(table: &Table, id: u64, entry: Entry) -> Result<(), Refused> {
        table.insert(id, entry, &AtomicBool::new(false))
    }

    #[test]
    fn objects_are_found_until_they_are_removed() {
        let table = Table::new(10);
        let view = table.view();
        assert_eq!(view.get(5), None);
        insert(&table, 5, entry(50)).unwrap();
        assert_eq!(view.get(5), Some(entry(50)));
        assert_eq!(table.remove(5, KIND + 1), None, "another type");
        assert_eq!(table.remove(5, KIND), Some(entry(50)));
        assert_eq!(table.remove(5, KIND), None, "twice");
        assert_eq!(view.get(5), None);
        assert!(view.get(0).is_none_or(|entry| entry.host == 0));
        assert_eq!(table.remove(0, 0), None, "what an empty slot looks like");
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn an_object_made_anew_under_the_same_id_is_not_taken_for_the_old_one() {
        let table = Table::new(10);
        insert(&table, 5, entry(50)).unwrap();
        assert!(!table.remove_exactly(5, KIND, 51));
        assert!(!table.remove_exactly(6, KIND, 50));
        assert!(table.remove_exactly(5, KIND, 50));
        assert!(!table.remove_exactly(5, KIND, 50));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_departed_object_is_found_until_its_id_is_taken_or_others_depart() {
        let table = Table::new(1000);
        let view = table.view();
        insert(&table, 5, entry(50)).unwrap();
        assert_eq!(table.depart(5, entry(51)), None, "another object");
        assert_eq!(table.depart(5, entry(50)), Some(None));
        assert_eq!(table.depart(5, entry(50)), None, "twice");
        assert_eq!(table.remove(5, KIND), None);
        assert_eq!(table.len(), 0);
        assert_eq!(view.get(5), Some(entry(50)));
        // Another object may have the id at once.
        insert(&table, 5, entry(51)).unwrap();
        assert_eq!(view.get(5), Some(entry(51)));
        table.depart(5, entry(51)).unwrap();
        assert_eq!(view.get(5), Some(entry(51)));
        for id in 6..4 + departed::MOST as u64 {
            insert(&table, id, entry(100 + id)).unwrap();
            assert_eq!(table.depart(id, entry(100 + id)), Some(None));
        }
        insert(&table, 999, entry(999)).unwrap();
        assert_eq!(table.depart(999, entry(999)), Some(Some(entry(50))));
        let other = Entry {
            owner: 2,
            ..entry(1)
        };
        insert(&table, 1000, other).unwrap();
        assert_eq!(table.depart(1000, other), Some(None), "of another device");
        // They go with their device.
        let (removed, live) = table.remove_owned(1);
        assert_eq!((removed.len(), live), (departed::MOST, 0));
        assert_eq!(view.get(999), None);
        assert_eq!(view.get(1000), Some(other));
    }

    #[test]
    fn ids_cannot_be_taken_twice_and_the_budget_holds() {
        let table = Table::new(2);
        assert_eq!(insert(&table, 0, entry(1)), Err(Refused::IdTaken));
        insert(&table, 1, entry(1)).unwrap();
        assert_eq!(insert(&table, 1, entry(2)), Err(Refused::IdTaken));
        insert(&table, 2, entry(2)).unwrap();
        assert_eq!(insert(&table, 3, entry(3)), Err(Refused::TooMany));
        table.remove(1, KIND).unwrap();
        insert(&table, 3, entry(3)).unwrap();
    }

    #[test]
    fn ids_that_share_a_slot_are_all_found() {
        let table = Table::new(100);
        let view = table.view();
        let ids: Vec<u64> = (0..50).map(|i| 7 + (i << 40)).collect();
        for id in &ids {
            insert(&table, *id, entry(*id + 1)).unwrap();
        }
        for id in &ids {
            assert_eq!(view.get(*id), Some(entry(*id + 1)));
        }
        // The object in the slot is removed; the others stay where they are.
        table.remove(7, KIND).unwrap();
        assert_eq!(view.get(7), None);
        assert_eq!(view.get(ids[1]), Some(entry(ids[1] + 1)));
        table.remove(ids[1], KIND).unwrap();
        assert_eq!(table.len(), 48);
    }

    #[test]
    fn a_view_from_before_the_growth_sees_every_later_change() {
        let table = Table::new(1 << 20);
        let old = table.view();
        for id in 1..=5000 {
            insert(&table, id, entry(id)).unwrap();
        }
        table.remove(3, KIND).unwrap();
        assert_eq!(old.get(3), None);
        for id in 4..=5000 {
            assert_eq!(old.get(id), Some(entry(id)), "{id}");
        }
    }

    #[test]
    fn a_device_takes_its_objects_along() {
        let table = Table::new(100);
        for id in 1..=10 {
            let owner = (id % 2) as u32;
            insert(&table, id << 30, Entry { owner, ..entry(id) }).unwrap();
        }
        let mut gone: Vec<u64> = table
            .remove_owned(1)
            .0
            .iter()
            .map(|(_, e)| e.host)
            .collect();
        gone.sort_unstable();
        assert_eq!(gone, [1, 3, 5, 7, 9]);
        assert_eq!(table.len(), 5);
        assert!(table.view().get(2 << 30).is_some());
    }

    #[test]
    fn a_reader_never_mixes_two_objects_of_one_slot() {
        let table = Table::new(100);
        let (stop, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let view = table.view();
                while stop.load(Ordering::Relaxed) == 0 {
                    for id in [1, 1 + (1 << 30)] {
                        if let Some(found) = view.get(id) {
                            assert_eq!(u64::from(found.kind), 1 + (id >> 30));
                            assert_eq!(found.host, id);
                            assert_eq!(u64::from(found.owner), id >> 20);
                            seen.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
            // Nearly always only one of both lives: the next takes the slot that the last leaves.
            let made = |round: u64| {
                let id = 1 + ((round & 1) << 30);
                let (kind, owner) = (1 + (id >> 30) as u32, (id >> 20) as u32);
                let entry = Entry {
                    host: id,
                    kind,
                    owner,
                };
                insert(&table, id, entry).unwrap();
                (id, kind)
            };
            let mut last = made(0);
            while seen.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            for round in 1..200_000 {
                assert!(table.remove(last.0, last.1).is_some());
                last = made(round);
            }
            stop.store(1, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}
