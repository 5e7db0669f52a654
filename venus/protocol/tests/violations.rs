//! What a hostile guest may send: each violation is an error that says what and where.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::sync::atomic::{AtomicU64, Ordering};

use hesper_venus_protocol::runtime::{
    Arena, Command, Decoder, Fatal, Front, HandleMap, Reason, Resolved, Slot,
};
use hesper_venus_protocol::vk::{HandleType, StructureType};
use hesper_venus_protocol::{CommandId, command, trace, vk};

/// Device 1, command buffer 2, buffer 3 and image 4; nothing else exists.
struct Few;

impl HandleMap for Few {
    fn resolve(&self, ty: HandleType, id: u64) -> Resolved {
        let exists = matches!(
            (ty, id),
            (HandleType::Device, 1)
                | (HandleType::CommandBuffer, 2)
                | (HandleType::Buffer, 3)
                | (HandleType::Image, 4)
        );
        if exists {
            Resolved {
                handle: 0x1000 + id,
                owner: 7,
            }
        } else {
            Resolved::UNKNOWN
        }
    }
}

/// Words and longs as bytes.
macro_rules! wire {
    ($($value:expr),* $(,)?) => {{
        let mut wire: Vec<u8> = Vec::new();
        $(wire.extend_from_slice(&$value.to_le_bytes());)*
        wire
    }};
}

fn fails<C: for<'m> Refused<'m>>(wire: &[u8]) -> Fatal {
    C::refused(&mut wire.to_vec(), &Arena::new(1 << 20))
}

/// A command at any lifetime, to be refused.
trait Refused<'m> {
    fn refused(wire: &'m mut [u8], arena: &'m Arena) -> Fatal;
}

macro_rules! refused {
    ($($marker:ident = $command:ty;)*) => {
        $(
            struct $marker;
            impl<'m> Refused<'m> for $marker {
                fn refused(wire: &'m mut [u8], arena: &'m Arena) -> Fatal {
                    let mut decoder = Decoder::new(wire, arena, &Few);
                    match decoder.header() {
                        Err(error) => error,
                        Ok(_) => match <$command>::decode(&mut decoder) {
                            Ok(_) => panic!("{} was taken", stringify!($command)),
                            Err(error) => error,
                        },
                    }
                }
            }
        )*
    };
}

refused! {
    CreateBuffer = command::CreateBuffer<'m>;
    CreateImage = command::CreateImage<'m>;
    CreateShaderModule = command::CreateShaderModule<'m>;
    BindBuffers = command::CmdBindVertexBuffers<'m>;
    ClearColor = command::CmdClearColorImage<'m>;
    Draw = command::CmdDraw;
    GetCache = command::GetPipelineCacheData<'m>;
    Layers = command::EnumerateDeviceExtensionProperties<'m>;
    BlendConstants = command::CmdSetBlendConstants;
    BuildAs = command::CmdBuildAccelerationStructuresKHR<'m>;
    AllocateMemory = command::AllocateMemory<'m>;
}

const BUFFER: u32 = StructureType::BUFFER_CREATE_INFO.0 as u32;
const EXTERNAL: u32 = StructureType::EXTERNAL_MEMORY_BUFFER_CREATE_INFO.0 as u32;

/// vkCreateBuffer up to the chain.
fn create_buffer() -> Vec<u8> {
    wire![50u32, 0u32, 1u64, 1u64, BUFFER]
}

#[test]
fn numbers_without_a_command_are_refused() {
    for number in [195u32, 346, u32::MAX] {
        let error = fails::<Draw>(&wire![number, 0u32]);
        assert_eq!(error.reason, Reason::UnknownCommand(number));
    }
    // vkMapMemory has a number but no codec.
    let error = fails::<Draw>(&wire![23u32, 0u32]);
    assert_eq!(error.reason, Reason::NotCodable("vkMapMemory"));
    assert!(error.to_string().contains("vkMapMemory"), "{error}");
}

#[test]
fn an_object_must_exist_and_be_of_the_type() {
    let draw = |id: u64| fails::<Draw>(&wire![106u32, 0u32, id, 3u32, 1u32, 0u32, 0u32]);
    let ty = HandleType::CommandBuffer;
    // A device, a buffer, nothing, and null.
    for id in [1, 3, 9] {
        assert_eq!(draw(id).reason, Reason::Handle { ty, id });
    }
    assert_eq!(draw(0).reason, Reason::NullHandle(ty));
    assert_eq!(draw(9).offset, 32);
    assert_eq!(draw(9).command, CommandId::CmdDraw.number());
}

#[test]
fn an_object_that_another_thread_removes_is_gone_for_the_next_command() {
    struct Table([Slot; 8], AtomicU64);
    impl HandleMap for Table {
        fn resolve(&self, _: HandleType, _: u64) -> Resolved {
            Resolved::UNKNOWN
        }
        fn front(&self) -> Front<'_> {
            Front::new(&self.0, &self.1)
        }
    }
    let table = Table(Default::default(), AtomicU64::new(0));
    let object = Resolved {
        handle: 0x1002,
        owner: 1,
    };
    table.0[2].put(2, HandleType::CommandBuffer as u32, object);
    let mut stream = wire![106u32, 0u32, 2u64, 3u32, 1u32, 0u32, 0u32].repeat(3);
    let arena = Arena::default();
    let mut decoder = Decoder::new(&mut stream, &arena, &table);
    let mut draw = || {
        decoder.header().unwrap();
        command::CmdDraw::decode(&mut decoder).map(|draw| draw.command_buffer.handle.0)
    };
    assert_eq!((draw(), draw()), (Ok(0x1002), Ok(0x1002)));
    table.1.fetch_add(1, Ordering::Release);
    table.0[2].clear();
    let ty = HandleType::CommandBuffer;
    assert_eq!(draw().unwrap_err().reason, Reason::Handle { ty, id: 2 });
}

#[test]
fn handles_in_arrays_are_looked_up_too() {
    let bind = |id: u64| wire![105u32, 0u32, 2u64, 0u32, 1u32, 1u64, id, 1u64, 0u64];
    let (mut taken, arena) = (bind(3), Arena::default());
    let mut decoder = Decoder::new(&mut taken, &arena, &Few);
    decoder.header().unwrap();
    let args = command::CmdBindVertexBuffers::decode(&mut decoder).unwrap();
    assert_eq!(args.command_buffer.handle.0, 0x1002);
    assert_eq!(args.p_buffers[0].0, 0x1003);
    let error = fails::<BindBuffers>(&bind(4));
    assert_eq!(
        error.reason,
        Reason::Handle {
            ty: HandleType::Buffer,
            id: 4
        }
    );
}

#[test]
fn a_chain_holds_only_what_belongs_there() {
    let unknown = [create_buffer(), wire![1u64, 0x7fff_ffffu32]].concat();
    let error = fails::<CreateBuffer>(&unknown);
    assert_eq!(error.reason, Reason::Link(StructureType(0x7fff_ffff)));
    // Known, but for images.
    let format_list = StructureType::IMAGE_FORMAT_LIST_CREATE_INFO;
    let foreign = [create_buffer(), wire![1u64, format_list.0]].concat();
    assert_eq!(
        fails::<CreateBuffer>(&foreign).reason,
        Reason::Link(format_list)
    );
    // File descriptors of another machine.
    let import = wire![21u32, 0u32, 1u64, 1u64, 5u32, 1u64, 1_000_074_000u32];
    assert_eq!(
        fails::<AllocateMemory>(&import).reason,
        Reason::Link(StructureType(1_000_074_000))
    );
}

#[test]
fn a_chain_of_any_length_costs_no_stack() {
    let link = wire![1u64, EXTERNAL];
    let mut stream = create_buffer();
    for _ in 0..400_000 {
        stream.extend_from_slice(&link);
    }
    let thread = std::thread::Builder::new().stack_size(64 << 10);
    let error = thread
        .spawn(move || fails::<CreateBuffer>(&stream))
        .unwrap()
        .join()
        .unwrap();
    // And no more memory than the budget of `fails`.
    assert!(matches!(error.reason, Reason::Budget { .. }));
}

/// The structs of a chain of T.
fn chain_of<T: Copy>(mut next: *const std::ffi::c_void) -> Vec<T> {
    let mut found = Vec::new();
    while !next.is_null() {
        // SAFETY: the decoder made a chain of T, which begins with type and next struct.
        unsafe {
            found.push(*next.cast::<T>());
            next = *next.cast::<*const std::ffi::c_void>().add(1);
        }
    }
    found
}

#[test]
fn of_a_struct_that_is_twice_in_a_chain_the_first_counts() {
    let mut stream = create_buffer();
    // The types of the chain, then its bodies from the innermost outwards, then the rest of the
    // info.
    stream.extend(wire![1u64, EXTERNAL, 1u64, EXTERNAL, 1u64, EXTERNAL, 0u64]);
    stream.extend(wire![
        3u32, 2u32, 1u32, 0u32, 16u64, 1u32, 0u32, 0u32, 0u64, 0u64, 1u64, 9u64
    ]);
    let arena = Arena::default();
    let mut decoder = Decoder::with_ids(&mut stream, &arena);
    decoder.header().unwrap();
    let args = command::CreateBuffer::decode(&mut decoder).unwrap();
    assert!(decoder.is_empty());
    let external = chain_of::<vk::ExternalMemoryBufferCreateInfo>(args.p_create_info.p_next);
    assert_eq!(external.len(), 1);
    assert_eq!(external[0].handle_types.0, 1);
    assert_eq!(args.p_create_info.size, 16);
}

#[test]
fn structs_that_may_be_several_times_in_a_chain_are() {
    const SLOTS: u32 = 1_000_295_001;
    let mut stream = wire![
        11u32, 0u32, 2u64, 1u64, 3u32, 1u64, SLOTS, 1u64, SLOTS, 0u64
    ];
    stream.extend(wire![
        7u32, 5u32, 0u32, 0u32, 0u64, 0u32, 0u64, 0u32, 0u64, 0u64, 0u64, 1u64, 9u64
    ]);
    let arena = Arena::default();
    let mut decoder = Decoder::with_ids(&mut stream, &arena);
    decoder.header().unwrap();
    let args = command::CreateDevice::decode(&mut decoder).unwrap();
    assert!(decoder.is_empty());
    let slots = chain_of::<vk::DevicePrivateDataCreateInfo>(args.p_create_info.p_next);
    let counts: Vec<_> = slots
        .iter()
        .map(|s| s.private_data_slot_request_count)
        .collect();
    assert_eq!(counts, [5, 7]);
}

#[test]
fn the_struct_must_be_the_one_asked_for() {
    let error = fails::<CreateBuffer>(&wire![50u32, 0u32, 1u64, 1u64, 14u32, 0u64]);
    let (found, expected) = (StructureType(14), StructureType::BUFFER_CREATE_INFO);
    assert_eq!(error.reason, Reason::Type { found, expected });
}

#[test]
fn pointers_are_null_where_and_only_where_they_may_be() {
    assert_eq!(
        fails::<CreateBuffer>(&wire![50u32, 0u32, 1u64, 0u64]).reason,
        Reason::Null
    );
    // An allocator.
    let mut stream = create_buffer();
    stream.extend(wire![
        0u64, 0u32, 16u64, 1u32, 0u32, 0u32, 0u64, 1u64, 1u64, 9u64
    ]);
    assert_eq!(fails::<CreateBuffer>(&stream).reason, Reason::NotNull);
}

#[test]
fn counts_must_be_what_the_length_says() {
    // codeSize 8 is two words, not three.
    let shader = wire![
        59u32, 0u32, 1u64, 1u64, 16u32, 0u64, 0u32, 8u64, 3u64, 0u64, 0u64
    ];
    let error = fails::<CreateShaderModule>(&shader);
    assert_eq!(
        error.reason,
        Reason::Count {
            found: 3,
            expected: 2
        }
    );
    // blendConstants is an array of four.
    let blend = wire![98u32, 0u32, 2u64, 3u64, 0u64, 0u64];
    let error = fails::<BlendConstants>(&blend);
    assert_eq!(
        error.reason,
        Reason::Count {
            found: 3,
            expected: 4
        }
    );
    // pInfos may not be absent, else ppBuildRangeInfos would have no lengths.
    let build = wire![306u32, 0u32, 2u64, 1u32, 0u64, 1u64, 0u64];
    let error = fails::<BuildAs>(&build);
    assert_eq!(
        error.reason,
        Reason::Count {
            found: 0,
            expected: 1
        }
    );
}

#[test]
fn counts_beyond_the_stream_allocate_nothing() {
    // 2^32 - 1 buffers in a stream of a few bytes.
    let mut bind = wire![
        105u32,
        0u32,
        2u64,
        0u32,
        u32::MAX,
        u64::from(u32::MAX),
        3u64
    ];
    let arena = Arena::default();
    let mut decoder = Decoder::new(&mut bind, &arena, &Few);
    decoder.header().unwrap();
    let error = command::CmdBindVertexBuffers::decode(&mut decoder)
        .err()
        .unwrap();
    assert!(matches!(error.reason, Reason::Truncated { .. }), "{error}");
    assert_eq!(arena.held(), 0);
    // Sizes that overflow when they are multiplied or padded.
    let code = wire![
        59u32,
        0u32,
        1u64,
        1u64,
        16u32,
        0u64,
        0u32,
        u64::MAX,
        u64::MAX / 4
    ];
    assert!(matches!(
        fails::<CreateShaderModule>(&code).reason,
        Reason::Truncated { .. }
    ));
}

#[test]
fn outputs_are_held_to_the_budget() {
    // Room for outputs takes no bytes of the stream, so only the budget bounds it.
    let get = |n: u64| wire![63u32, 1u32, 1u64, 3u64, 1u64, n, n];
    struct Any;
    impl HandleMap for Any {
        fn resolve(&self, _: HandleType, id: u64) -> Resolved {
            Resolved {
                handle: id,
                owner: 0,
            }
        }
    }
    let arena = Arena::new(1 << 20);
    for n in [1 << 21, 1 << 40, u64::MAX] {
        let mut stream = get(n);
        let mut decoder = Decoder::new(&mut stream, &arena, &Any);
        decoder.header().unwrap();
        let error = command::GetPipelineCacheData::decode(&mut decoder)
            .err()
            .unwrap();
        assert!(matches!(error.reason, Reason::Budget { .. }), "{error}");
    }
    assert!(arena.held() <= 1 << 20);
    let wrong = fails::<GetCache>(&get(8));
    assert!(matches!(
        wrong.reason,
        Reason::Handle {
            ty: HandleType::PipelineCache,
            ..
        }
    ));
}

#[test]
fn strings_end_where_they_say() {
    let list = |text: [u8; 4]| {
        let mut stream = wire![14u32, 0u32, 1u64, 4u64];
        stream.extend_from_slice(&text);
        stream.extend(wire![1u64, 0u32, 0u64]);
        stream
    };
    struct Any;
    impl HandleMap for Any {
        fn resolve(&self, _: HandleType, id: u64) -> Resolved {
            Resolved {
                handle: id,
                owner: 0,
            }
        }
    }
    let arena = Arena::default();
    let mut good = list(*b"abc\0");
    let mut decoder = Decoder::new(&mut good, &arena, &Any);
    decoder.header().unwrap();
    let args = command::EnumerateDeviceExtensionProperties::decode(&mut decoder).unwrap();
    assert_eq!(args.p_layer_name.to_c_str(), Some(c"abc"));
    let mut bad = list(*b"abcd");
    let mut decoder = Decoder::new(&mut bad, &arena, &Any);
    decoder.header().unwrap();
    let error = command::EnumerateDeviceExtensionProperties::decode(&mut decoder)
        .err()
        .unwrap();
    assert_eq!(error.reason, Reason::Unterminated);
    let wrong = fails::<Layers>(&good);
    assert!(matches!(
        wrong.reason,
        Reason::Handle {
            ty: HandleType::PhysicalDevice,
            ..
        }
    ));
}

#[test]
fn union_tags_are_checked() {
    let clear = |tag: u32| wire![119u32, 0u32, 2u64, 4u64, 7u32, 1u64, tag, 4u64, 0u64, 0u64];
    assert_eq!(fails::<ClearColor>(&clear(3)).reason, Reason::Tag(3));
    assert!(matches!(
        fails::<ClearColor>(&clear(0)).reason,
        Reason::Truncated { .. }
    ));
    // Geometry that says triangles, then AABBs.
    let geometry = wire![
        306u32,
        0u32,
        2u64,
        1u32,
        1u64, // one info
        1_000_150_000u32,
        0u64,
        0u32,
        0u32,
        0u32,
        0u64,
        0u64,
        1u32, // up to geometryCount
        1u64,
        1_000_150_006u32,
        0u64,
        0u32, // one geometry of triangles
        1u32, // tag: AABBs
    ];
    assert_eq!(
        fails::<BuildAs>(&geometry).reason,
        Reason::Selector {
            tag: 1,
            selector: 0
        }
    );
}

#[test]
fn an_image_chain_is_walked_whole() {
    // Two structs, the second of which ends early.
    let image = StructureType::IMAGE_CREATE_INFO;
    let (external, list) = (
        StructureType::EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
        StructureType::IMAGE_FORMAT_LIST_CREATE_INFO,
    );
    let stream = wire![
        54u32, 0u32, 1u64, 1u64, image.0, 1u64, external.0, 1u64, list.0, 0u64, 1u32
    ];
    assert!(matches!(
        fails::<CreateImage>(&stream).reason,
        Reason::Truncated { .. }
    ));
}

#[test]
fn traces_say_names_and_ids() {
    let mut arena = Arena::default();
    let mut draw = wire![106u32, 1u32, 2u64, 3u32, 1u32, 0u32, 0u32];
    let (text, length) = trace::command(&mut draw, &mut arena).unwrap();
    assert_eq!(length, draw.len());
    assert_eq!(
        text,
        "vkCmdDraw(commandBuffer=0x2, vertexCount=3, instanceCount=1, firstVertex=0, \
         firstInstance=0) -> reply"
    );
    let mut create = create_buffer();
    create.extend(wire![1u64, EXTERNAL, 0u64, 0x200u32]);
    create.extend(wire![0u32, 1024u64, 0x12u32, 1u32, 2u32, 2u64, 0u32, 5u32]);
    create.extend(wire![0u64, 1u64, 9u64]);
    let (text, _) = trace::command(&mut create, &mut arena).unwrap();
    assert_eq!(
        text,
        "vkCreateBuffer(device=0x1, pCreateInfo={flags=0, size=1024, \
         usage=TRANSFER_DST|UNIFORM_BUFFER, sharingMode=CONCURRENT, queueFamilyIndexCount=2, \
         pQueueFamilyIndices=[0, 5] + VkExternalMemoryBufferCreateInfo{handleTypes=DMA_BUF_EXT}}, \
         pBuffer=0x9)"
    );
    assert!(trace::command(&mut create[..40], &mut arena).is_err());
}
