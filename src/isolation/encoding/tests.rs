//! Messages as bytes and back; bytes that are no messages.

use proptest::prelude::*;

use super::*;

fn request() -> impl Strategy<Value = BlobRequest> {
    any::<(u64, u64, bool, bool, bool)>().prop_map(
        |(blob_id, size, mappable, shareable, cross_device)| BlobRequest {
            blob_id,
            size,
            mappable,
            shareable,
            cross_device,
        },
    )
}

fn piece() -> impl Strategy<Value = Piece> {
    any::<(u64, u64, bool)>().prop_map(|(offset, size, is_cached)| Piece {
        offset,
        size,
        caching: match is_cached {
            true => Caching::Cached,
            false => Caching::WriteCombining,
        },
    })
}

/// A message, and how many descriptors travel with it.
fn to_worker() -> impl Strategy<Value = (ToWorker, usize)> {
    let run = (0..3_u32, any::<(u64, u64)>());
    let run = run.prop_map(|(file, (offset, size))| Run { file, offset, size });
    let runs = proptest::collection::vec(run, 1..40);
    prop_oneof![
        any::<Vec<u8>>().prop_map(|findings| (ToWorker::Configure(findings), 3)),
        any::<(u32, String, bool)>().prop_map(|(id, name, copies)| {
            let server = match copies {
                true => DisplayServer::NeedsCopies,
                false => DisplayServer::Unknown,
            };
            (ToWorker::Begin { id, name, server }, 0)
        }),
        any::<Vec<u8>>().prop_map(|commands| (ToWorker::Submit(commands), 0)),
        any::<(u8, u64)>().prop_map(|(ring, fence)| (ToWorker::Fence { ring, fence }, 0)),
        (any::<u32>(), request())
            .prop_map(|(resource, request)| (ToWorker::CreateBlob { resource, request }, 0)),
        (any::<u32>(), piece())
            .prop_map(|(resource, memory)| (ToWorker::Attach { resource, memory }, 1)),
        (any::<u32>(), runs)
            .prop_map(|(resource, runs)| (ToWorker::AttachGuest { resource, runs }, 3)),
        any::<(u32, u32)>()
            .prop_map(|(resource, ticket)| (ToWorker::Detach { resource, ticket }, 0)),
        (1..u32::MAX).prop_map(|ticket| (ToWorker::GiveBack { ticket }, 0)),
        any::<(u64, bool)>().prop_map(|(serial, is_given_away)| {
            let returned = ToWorker::Returned {
                serial,
                is_given_away,
            };
            (returned, 0)
        }),
        Just((ToWorker::End, 0)),
    ]
}

fn from_worker() -> impl Strategy<Value = (FromWorker, usize)> {
    let kind = prop_oneof![
        Just(Refusal::Invalid),
        Just(Refusal::OutOfMemory),
        Just(Refusal::Lost)
    ];
    prop_oneof![
        Just((FromWorker::Ready, 0)),
        any::<String>().prop_map(|text| (FromWorker::Unable(text), 0)),
        any::<(u8, u64)>().prop_map(|(ring, fence)| (FromWorker::FenceRetired { ring, fence }, 0)),
        (any::<(u32, u64)>(), piece()).prop_map(|((resource, serial), memory)| {
            let created = FromWorker::BlobCreated {
                resource,
                serial,
                memory,
            };
            (created, 1)
        }),
        (any::<(u32, String)>(), kind).prop_map(|((resource, reason), kind)| {
            let refused = FromWorker::BlobRefused {
                resource,
                kind,
                reason,
            };
            (refused, 0)
        }),
        any::<(u64, u64)>()
            .prop_map(|(ring, status)| (FromWorker::RingCreated { ring, status }, 1)),
        any::<u64>().prop_map(|ring| (FromWorker::RingDestroyed { ring }, 0)),
        any::<u64>().prop_map(|bytes| (FromWorker::Consumed { bytes }, 0)),
        (1..u32::MAX).prop_map(|ticket| (FromWorker::Detached { ticket }, 0)),
        any::<String>().prop_map(|text| (FromWorker::Lost(text), 0)),
        (1..=5_u8, any::<String>()).prop_map(|(level, line)| (FromWorker::Log { level, line }, 0)),
        Just((FromWorker::Ended, 0)),
    ]
}

fn budget() -> impl Strategy<Value = (Budget, usize)> {
    let one = any::<(u8, u64)>();
    prop_oneof![
        one.prop_map(|(pool, amount)| (Budget::Ask { pool, amount }, 0)),
        any::<u64>().prop_map(|amount| (Budget::Granted { amount }, 0)),
        any::<(u8, u64)>().prop_map(|(pool, amount)| (Budget::GiveBack { pool, amount }, 0)),
        any::<u8>().prop_map(|pool| (Budget::Left { pool }, 0)),
    ]
}

fn bytes(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes.extend_from_slice(message.tail());
    bytes
}

/// What is sent arrives, and only with its descriptors.
fn check_round_trip<M: Message + Clone + PartialEq + std::fmt::Debug>(message: &M, fds: usize) {
    let bytes = bytes(message);
    let decoded = M::decode(message.kind(), Cow::Borrowed(&bytes), fds);
    assert_eq!(decoded.as_ref(), Ok(message));
    assert!(M::decode(message.kind(), Cow::Borrowed(&bytes), 20).is_err());
}

/// Whatever is decoded without an error is what would be sent for it.
fn check_bytes<M: Message + std::fmt::Debug>(kind: u8, fields: &[u8], fds: usize) {
    if let Ok(message) = M::decode(kind, Cow::Borrowed(fields), fds) {
        assert_eq!(message.kind(), kind);
        assert_eq!(bytes(&message), fields, "{message:?}");
    }
}

fn check_all(kind: u8, fields: &[u8], fds: usize) {
    check_bytes::<ToWorker>(kind, fields, fds);
    check_bytes::<FromWorker>(kind, fields, fds);
    check_bytes::<Budget>(kind, fields, fds);
}

proptest! {
    #[test]
    fn a_message_arrives_as_it_was_sent(
        (to, to_fds) in to_worker(),
        (from, from_fds) in from_worker(),
        (budget, budget_fds) in budget(),
    ) {
        check_round_trip(&to, to_fds);
        check_round_trip(&from, from_fds);
        check_round_trip(&budget, budget_fds);
    }

    #[test]
    fn random_bytes_are_refused_or_are_a_message(
        kind in 0..80_u8,
        fields in proptest::collection::vec(any::<u8>(), 0..80),
        fds in 0..4_usize,
    ) {
        check_all(kind, &fields, fds);
    }

    #[test]
    fn a_mutated_message_is_refused_or_is_another_one(
        (message, fds) in from_worker(),
        place in any::<prop::sample::Index>(),
        value in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut all = bytes(&message);
        if !all.is_empty() {
            let place = place.index(all.len());
            all[place] = value;
        }
        check_all(message.kind(), &all, fds);
        let cut = cut.index(all.len() + 1);
        check_all(message.kind(), &all[..cut], fds);
        all.push(value);
        check_all(message.kind(), &all, fds);
    }
}

#[test]
fn a_byte_too_many_is_an_error() {
    for (kind, fields) in [(10, 1), (4, 10), (8, 9), (5, 24)] {
        let fields = vec![1; fields];
        let decoded = ToWorker::decode(kind, Cow::Borrowed(&fields), 0);
        let bytes = fields.len();
        assert_eq!(decoded, Err(Malformed::Length { kind, bytes }));
    }
}

#[test]
fn long_text_of_a_worker_is_cut_between_two_characters() {
    let sent = FromWorker::Lost("ä".repeat(LONGEST_TEXT));
    let bytes = bytes(&FromWorker::Lost(format!("x{}", "ä".repeat(LONGEST_TEXT))));
    assert_eq!(bytes.len(), LONGEST_TEXT - 1);
    let decoded = FromWorker::decode(sent.kind(), Cow::Owned(bytes), 0);
    assert!(matches!(decoded, Ok(FromWorker::Lost(text)) if text.ends_with('ä')));
    let much = vec![b'x'; LONGEST_TEXT + 1];
    assert!(FromWorker::decode(sent.kind(), Cow::Owned(much), 0).is_err());
}

#[test]
fn guest_memory_names_only_files_that_came() {
    let runs = vec![Run {
        file: 2,
        offset: 0,
        size: 4096,
    }];
    let message = ToWorker::AttachGuest { resource: 1, runs };
    let bytes = bytes(&message);
    let decode = |fds| ToWorker::decode(message.kind(), Cow::Borrowed(&bytes), fds);
    assert!(decode(2).is_err());
    assert_eq!(decode(3).as_ref(), Ok(&message));
    assert!(decode(MOST_FILES + 1).is_err());
}
