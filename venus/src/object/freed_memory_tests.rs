use super::*;

#[test]
fn a_device_near_its_limit_of_allocations_keeps_nothing() {
    let room = Arc::new(Room::new(SharedTally::default()));
    let freed = FreedMemory::new(&room);
    assert!(!freed.is_in_the_way(5000, 4096), "nothing is kept");
    let _place = room.place(4096, 4096).unwrap();
    assert!(!freed.is_in_the_way(4095, 4096));
    assert!(freed.is_in_the_way(4096, 4096));
    assert!(!freed.is_in_the_way(4096, u32::MAX));
    assert!(!freed.is_in_the_way(100, 0), "no device has so few");
}

#[test]
fn a_room_has_so_many_pieces_and_bytes_and_gets_them_back() {
    let tally = SharedTally::default();
    let room = Arc::new(Room::new(tally.clone()));
    let places: Vec<_> = (0..MOST_PIECES)
        .map(|_| room.place(MOST_BYTES / 64, 5).unwrap())
        .collect();
    assert!(room.place(1, 0).is_none());
    assert_eq!(room.device_memory(), 5 * MOST_PIECES as u64);
    drop(places);
    assert!(room.is_empty());
    assert_eq!((room.bytes(), room.device_memory()), (0, 0));
    let _one = room.place(MOST_BYTES, 0).unwrap();
    assert!(room.place(1, 0).is_none());
    assert!(room.place(u64::MAX, 0).is_none());
    assert_eq!(tally.kept_bytes.load(Ordering::Relaxed), MOST_BYTES);
}

#[test]
fn only_one_thread_looks_at_a_time() {
    let room = Room::new(SharedTally::default());
    assert!(room.is_time_to_look());
    assert!(!room.is_time_to_look());
}
