use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn set(numbers: impl IntoIterator<Item = u64>) -> SeenSet {
    let mut set = SeenSet::new();
    for number in numbers {
        assert_ne!(insert(&mut set, number), Fresh::Full);
    }
    set
}

fn insert(set: &mut SeenSet, number: u64) -> Fresh {
    set.insert(Sequence::try_from(number).unwrap())
}

#[test]
fn keeps_what_the_other_road_overtook() {
    let mut set = set((1..40).chain([50]));

    assert_eq!(set.mark(), 39);
    assert_eq!(set.highest(), 50);
    assert_eq!(set.ranges().collect::<Vec<_>>(), [SequenceRange { first: 50, last: 50 }]);
    assert_eq!(insert(&mut set, 40), Fresh::New);
    assert_eq!(insert(&mut set, 50), Fresh::Repeated);
}

#[test]
fn the_mark_jumps_when_the_gap_is_closed() {
    let mut set = set([2, 3, 4, 6]);

    assert_eq!(insert(&mut set, 1), Fresh::New);

    assert_eq!((set.mark(), set.highest(), SeenSet::new().highest()), (4, 6, 0));
    assert_eq!(set.ranges().len(), 1);
}

#[test]
fn a_gap_that_the_client_tells_of_is_closed() {
    let mut set = set([1, 2, 9, 12]);

    assert_eq!(set.insert_range(SequenceRange { first: 3, last: 8 }), Fresh::New);
    assert_eq!(set.insert_range(SequenceRange { first: 3, last: 8 }), Fresh::Repeated);

    assert_eq!(set.mark(), 9);
    assert!(!set.contains(10));
}

#[test]
fn a_gap_names_what_was_dropped_and_not_what_still_waits_in_between() {
    let dropped = [SequenceRange { first: 3, last: 4 }, SequenceRange { first: 6, last: 8 }];
    let event = Event {
        sequence: 9,
        name: GAP_EVENT.to_owned(),
        fields: vec![gap_field(&dropped)],
        ..Event::default()
    };
    let mut set = set([1, 2, 9]);

    for range in gap_ranges(&event) {
        assert_eq!(set.insert_range(range), Fresh::New);
    }

    assert_eq!(insert(&mut set, 5), Fresh::New);
    assert_eq!(set.mark(), 9);
    assert_eq!(gap_ranges(&Event { name: "other".to_owned(), ..event }), []);
}

#[test]
fn a_gap_cannot_name_itself_or_what_is_still_to_come() {
    assert_eq!(
        gap_ranges(&gap(9, &[(1, 4), (7, 12), (9, 9), (10, u64::MAX)])),
        [SequenceRange { first: 1, last: 4 }, SequenceRange { first: 7, last: 8 }]
    );
    assert_eq!(gap_ranges(&gap(0, &[(1, 4)])), []);
}

#[test]
fn a_gap_names_so_many_sequences_and_no_more() {
    let end = GAP_SPAN_MAX;

    let ranges = gap_ranges(&gap(u64::MAX, &[(1, 2), (11, u64::MAX), (u64::MAX - 9, u64::MAX - 8)]));

    let (first, second) = (SequenceRange { first: 1, last: 2 }, SequenceRange { first: 11, last: end + 8 });
    assert_eq!(ranges, [first, second]);
}

fn gap(sequence: u64, dropped: &[(u64, u64)]) -> Event {
    let dropped: Vec<_> =
        dropped.iter().map(|(first, last)| SequenceRange { first: *first, last: *last }).collect();
    Event { sequence, name: GAP_EVENT.to_owned(), fields: vec![gap_field(&dropped)], ..Event::default() }
}

#[test]
fn a_range_that_is_none_changes_nothing() {
    let mut set = SeenSet::new();

    for (first, last) in [(0, 5), (5, 4), (0, 0)] {
        assert_eq!(set.insert_range(SequenceRange { first, last }), Fresh::Repeated);
    }

    assert_eq!(set, SeenSet::new());
}

#[test]
fn is_bounded_and_still_takes_what_closes_gaps() {
    let ranges = u64::try_from(SEEN_RANGES_MAX).unwrap();
    let mut set = set((1..=ranges).map(|n| n * 3));

    assert_eq!(insert(&mut set, u64::MAX), Fresh::Full);
    assert!(!set.contains(u64::MAX));
    assert_eq!(insert(&mut set, 4), Fresh::New);
    assert_eq!(insert(&mut set, 1), Fresh::New);
    assert_eq!(insert(&mut set, 2), Fresh::New);
    assert_eq!(set.mark(), 4);
    assert_eq!(SeenSet::decode(&set.encode()), Ok(set));
}

#[test]
fn reaches_the_last_number() {
    let mut set = SeenSet::new();

    assert_eq!(set.insert_range(SequenceRange { first: 1, last: u64::MAX - 1 }), Fresh::New);
    assert_eq!(insert(&mut set, u64::MAX), Fresh::New);
    assert_eq!(insert(&mut set, u64::MAX), Fresh::Repeated);
    assert_eq!(set.mark(), u64::MAX);
}

#[test]
fn refuses_a_damaged_set() {
    // A mark cut short, a range that touches the mark, a varint longer than it need be, an end past 2⁶⁴.
    for bytes in
        [&[0x80][..], &[5, 1, 0], &[5, 0x82, 0, 0], &[1, 2, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]]
    {
        assert!(SeenSet::decode(bytes).is_err(), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn agrees_with_a_plain_set(ranges in prop::collection::vec((1_u64..200, 0_u64..6), 0..120)) {
        let mut seen = SeenSet::new();
        let mut plain = BTreeSet::new();
        for (first, more) in ranges {
            let fresh = seen.insert_range(SequenceRange { first, last: first + more });
            let new = (first..=first + more).filter(|number| plain.insert(*number)).count();
            prop_assert_eq!(fresh, if new > 0 { Fresh::New } else { Fresh::Repeated });
        }
        for number in 1..220 {
            prop_assert_eq!(seen.contains(number), plain.contains(&number));
        }
        prop_assert_eq!(seen.mark(), (1..).take_while(|number| plain.contains(number)).count() as u64);
        prop_assert_eq!(SeenSet::decode(&seen.encode()).unwrap(), seen);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(set) = SeenSet::decode(&bytes) {
            prop_assert!(bytes.is_empty() || set.encode() == bytes);
        }
    }
}
