//! Bytes worked out by hand from the wire rules (venus/codegen/src/wire.rs), so that encoders and
//! decoders cannot be wrong together.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::ffi::CStr;
use std::ptr;

use hesper_venus_protocol::runtime::{Arena, Array, Command, Decoder, Encoder, Object};
use hesper_venus_protocol::{command, guest, vk};

/// A stream written down piece by piece.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn word(mut self, word: u32) -> Self {
        self.0.extend_from_slice(&word.to_le_bytes());
        self
    }

    fn words(self, words: &[u32]) -> Self {
        words.iter().fold(self, |wire, word| wire.word(*word))
    }

    fn long(mut self, long: u64) -> Self {
        self.0.extend_from_slice(&long.to_le_bytes());
        self
    }

    /// Bytes as they are: padding must be written down too.
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// The guest writes exactly these bytes.
fn sends<'a, C: Command<'a>>(args: &C, reply: bool, expected: &Wire) {
    let mut out = Vec::new();
    // SAFETY: every test makes its arguments of valid values.
    unsafe { guest::encode(args, reply, &mut out) };
    assert_eq!(out, expected.0);
}

/// The host reads them, to the last.
fn receives<'m, C: Command<'m>>(wire: &Wire, arena: &'m Arena) -> C {
    // Arguments may stay in the stream, and the test wants to read them for as long as it runs.
    let stream = wire.0.clone().leak();
    let mut decoder = Decoder::with_ids(stream, arena);
    let header = decoder.header().expect("a header");
    assert_eq!(header.command, C::ID);
    let args = C::decode(&mut decoder).unwrap_or_else(|error| panic!("{error}"));
    assert!(decoder.is_empty(), "stopped at byte {}", decoder.position());
    args
}

/// The host answers with exactly these bytes, and the guest reads them back.
fn answers<'a, C: Command<'a>>(args: &C, ret: C::Return, expected: &Wire, asker: &mut C) -> u64 {
    let mut buffer = vec![0xee; expected.0.len() + 64];
    let mut encoder = Encoder::new(&mut buffer);
    // SAFETY: decoded arguments, changed to valid values.
    unsafe { args.encode_reply(ret, &mut encoder) }.expect("room enough");
    let length = encoder.position();
    assert_eq!(&buffer[..length], &expected.0[..]);
    // SAFETY: as above.
    let (ret, read) = unsafe { guest::decode_reply(asker, &buffer[..length]) }.expect("a reply");
    assert_eq!(read, length);
    ret
}

#[test]
fn draw_is_a_handle_and_four_words() {
    let wire = Wire::default()
        .words(&[106, 0])
        .long(7)
        .words(&[3, 1, 0, 5]);
    let draw = command::CmdDraw {
        command_buffer: Object::guest(7),
        vertex_count: 3,
        instance_count: 1,
        first_vertex: 0,
        first_instance: 5,
    };
    sends(&draw, false, &wire);
    let arena = Arena::default();
    let args: command::CmdDraw = receives(&wire, &arena);
    assert_eq!(args.command_buffer, Object::guest(7));
    let numbers = (
        args.vertex_count,
        args.instance_count,
        args.first_vertex,
        args.first_instance,
    );
    assert_eq!(numbers, (3, 1, 0, 5));
}

#[test]
fn instances_bring_strings_and_an_id() {
    let wire = Wire::default()
        .words(&[0, 1])
        .long(1) // pCreateInfo
        .word(1)
        .long(0) // sType, no chain
        .word(0) // flags
        .long(1) // pApplicationInfo
        .word(0)
        .long(0) // sType, no chain
        .long(4)
        .bytes(b"abc\0")
        .word(5)
        .long(0) // no engine name
        .words(&[6, 0x0040_1000])
        .word(0)
        .long(0) // no layers
        .word(1)
        .long(1) // one extension
        .long(6)
        .bytes(b"VK_XY\0\0\0")
        .long(0) // pAllocator
        .long(1)
        .long(0x1234); // pInstance
    let app = vk::ApplicationInfo {
        p_application_name: c"abc".as_ptr(),
        application_version: 5,
        engine_version: 6,
        api_version: 0x0040_1000,
        ..Default::default()
    };
    let names = [c"VK_XY".as_ptr()];
    let mut info = vk::InstanceCreateInfo {
        p_application_info: &app,
        enabled_extension_count: 1,
        pp_enabled_extension_names: names.as_ptr(),
        ..Default::default()
    };
    let mut id = vk::Instance(0x1234);
    let mut create = command::CreateInstance {
        p_create_info: &mut info,
        p_instance: &mut id,
    };
    sends(&create, true, &wire);

    let arena = Arena::default();
    let args: command::CreateInstance<'_> = receives(&wire, &arena);
    assert_eq!(args.p_instance.0, 0x1234);
    // SAFETY: decoded pointers are null or valid.
    unsafe {
        let app = args
            .p_create_info
            .p_application_info
            .as_ref()
            .expect("an application");
        assert_eq!(CStr::from_ptr(app.p_application_name), c"abc");
        assert!(app.p_engine_name.is_null());
        assert_eq!((app.application_version, app.api_version), (5, 0x0040_1000));
        assert_eq!(
            CStr::from_ptr(*args.p_create_info.pp_enabled_extension_names),
            c"VK_XY"
        );
    }

    let reply = Wire::default().words(&[0, 0]).long(1).long(0x1234);
    assert_eq!(answers(&args, vk::Result::SUCCESS, &reply, &mut create), 0);
}

#[test]
fn chains_nest_like_brackets() {
    // vkAllocateMemory { a + { import + { dedicated } } }: sTypes outside in, members inside out.
    let wire = Wire::default()
        .words(&[21, 0])
        .long(2)
        .long(1)
        .word(5)
        .long(1)
        .word(1_000_384_002) // VkImportMemoryResourceInfoMESA
        .long(1)
        .word(1_000_127_001) // VkMemoryDedicatedAllocateInfo
        .long(0)
        .long(0)
        .long(77) // dedicated: no image, buffer 77
        .word(33) // import: resource 33
        .long(4096)
        .word(2) // allocationSize, memoryTypeIndex
        .long(0)
        .long(1)
        .long(99);
    let dedicated = vk::MemoryDedicatedAllocateInfo {
        buffer: vk::Buffer(77),
        ..Default::default()
    };
    let import = vk::ImportMemoryResourceInfoMESA {
        p_next: ptr::from_ref(&dedicated).cast(),
        resource_id: 33,
        ..Default::default()
    };
    let mut info = vk::MemoryAllocateInfo {
        p_next: ptr::from_ref(&import).cast(),
        allocation_size: 4096,
        memory_type_index: 2,
        ..Default::default()
    };
    let mut id = vk::DeviceMemory(99);
    let allocate = command::AllocateMemory {
        device: Object::guest(2),
        p_allocate_info: &mut info,
        p_memory: &mut id,
    };
    sends(&allocate, false, &wire);

    let arena = Arena::default();
    let args: command::AllocateMemory<'_> = receives(&wire, &arena);
    let chain = args.p_allocate_info.p_next;
    use hesper_venus_protocol::runtime::find;
    // SAFETY: a decoded chain.
    unsafe {
        let import: &vk::ImportMemoryResourceInfoMESA = find(chain).expect("in the chain");
        assert_eq!(import.resource_id, 33);
        let dedicated: &vk::MemoryDedicatedAllocateInfo = find(chain).expect("in the chain");
        assert_eq!(dedicated.buffer, vk::Buffer(77));
        assert!(find::<vk::ExportMemoryAllocateInfo>(chain).is_none());
    }
}

#[test]
fn property_requests_are_partial_and_replies_full() {
    let request = Wire::default()
        .words(&[148, 1])
        .long(9)
        .long(1)
        .word(1_000_059_001)
        .long(1)
        .word(1_000_071_004) // VkPhysicalDeviceIDProperties
        .long(0); // and nothing else: plain members of outputs stay at home
    let ask = |id: &mut vk::PhysicalDeviceIDProperties, out: &mut vk::PhysicalDeviceProperties2| {
        out.p_next = ptr::from_mut(id).cast();
    };
    let (mut id, mut out) = Default::default();
    ask(&mut id, &mut out);
    let mut get = command::GetPhysicalDeviceProperties2 {
        physical_device: Object::guest(9),
        p_properties: &mut out,
    };
    sends(&get, true, &request);

    let arena = Arena::default();
    let args: command::GetPhysicalDeviceProperties2<'_> = receives(&request, &arena);
    let properties = &mut args.p_properties.properties;
    properties.api_version = 0x0040_3000;
    properties.device_type = vk::PhysicalDeviceType::CPU;
    properties.device_name[..4].copy_from_slice(b"test");
    properties.limits.max_compute_work_group_size = [7, 8, 9];
    properties.sparse_properties.residency_non_resident_strict = 1;
    // SAFETY: a decoded chain.
    let host_id = unsafe {
        hesper_venus_protocol::runtime::find_mut::<vk::PhysicalDeviceIDProperties>(
            args.p_properties.p_next,
        )
    };
    let host_id = host_id.expect("in the chain");
    host_id.device_uuid = [0xab; 16];
    host_id.device_node_mask = 1;

    let mut reply = Wire::default()
        .word(148)
        .long(1)
        .word(1_000_059_001)
        .long(1)
        .word(1_000_071_004)
        .long(0)
        .long(16)
        .bytes(&[0xab; 16])
        .long(16)
        .bytes(&[0; 16])
        .long(8)
        .bytes(&[0; 8])
        .words(&[1, 0])
        .words(&[0x0040_3000, 0, 0, 0, 4])
        .long(256)
        .bytes(b"test")
        .bytes(&[0; 252])
        .long(16)
        .bytes(&[0; 16]);
    // VkPhysicalDeviceLimits up to maxComputeWorkGroupCount: 11 words, 2 sizes, 39 words.
    reply = reply.bytes(&[0; 4 * 11 + 8 * 2 + 4 * 39]);
    reply = reply
        .long(3)
        .words(&[0, 0, 0])
        .word(0)
        .long(3)
        .words(&[7, 8, 9]);
    // From subPixelPrecisionBits to maxViewports: 8 words; two arrays of two; one word.
    reply = reply.bytes(&[0; 4 * 8]);
    reply = reply.long(2).bytes(&[0; 8]).long(2).bytes(&[0; 8]).word(0);
    // A size_t and three VkDeviceSize; then words from minTexelOffset to discreteQueuePriorities.
    reply = reply.bytes(&[0; 8 * 4]).bytes(&[0; 4 * 27]);
    reply = reply.long(2).bytes(&[0; 8]).long(2).bytes(&[0; 8]);
    // Four words and three sizes; then the sparse properties.
    reply = reply.bytes(&[0; 4 * 4 + 8 * 3]).words(&[0, 0, 0, 0, 1]);
    answers(&args, (), &reply, &mut get);
    assert_eq!(out.properties.device_name[..5], *b"test\0");
    assert_eq!(out.properties.limits.max_compute_work_group_size, [7, 8, 9]);
    assert_eq!(id.device_uuid, [0xab; 16]);
}

#[test]
fn memory_types_are_counted_in_the_request_and_sent_whole_in_the_reply() {
    let request = Wire::default()
        .words(&[8, 1])
        .long(3)
        .long(1)
        .long(32)
        .long(16);
    let mut out = vk::PhysicalDeviceMemoryProperties::default();
    let mut get = command::GetPhysicalDeviceMemoryProperties {
        physical_device: Object::guest(3),
        p_memory_properties: &mut out,
    };
    sends(&get, true, &request);
    let arena = Arena::default();
    let args: command::GetPhysicalDeviceMemoryProperties<'_> = receives(&request, &arena);
    args.p_memory_properties.memory_type_count = 1;
    args.p_memory_properties.memory_types[0].heap_index = 6;
    args.p_memory_properties.memory_heap_count = 1;
    args.p_memory_properties.memory_heaps[0].size = 1 << 33;
    let reply = Wire::default()
        .word(8)
        .long(1)
        .word(1)
        .long(32)
        .words(&[0, 6])
        .bytes(&[0; 8 * 31])
        .word(1)
        .long(16)
        .long(1 << 33)
        .word(0)
        .bytes(&[0; 12 * 15]);
    answers(&args, (), &reply, &mut get);
    assert_eq!(out.memory_heaps[0].size, 1 << 33);
}

#[test]
fn enumeration_counts_twice() {
    let request = Wire::default()
        .words(&[2, 1])
        .long(1)
        .long(1)
        .word(2) // pPhysicalDeviceCount
        .long(2)
        .long(40)
        .long(41); // the ids that the guest has chosen
    let mut count = 2;
    let mut ids = [vk::PhysicalDevice(40), vk::PhysicalDevice(41)];
    let mut enumerate = command::EnumeratePhysicalDevices {
        instance: Object::guest(1),
        p_physical_device_count: &mut count,
        p_physical_devices: Array::from(&mut ids[..]),
    };
    sends(&enumerate, true, &request);
    let arena = Arena::default();
    let args: command::EnumeratePhysicalDevices<'_> = receives(&request, &arena);
    assert_eq!(*args.p_physical_devices, ids_of(&[40, 41]));
    // The host has one.
    *args.p_physical_device_count = 1;
    let reply = Wire::default()
        .words(&[2, 0])
        .long(1)
        .word(1)
        .long(1)
        .long(40);
    answers(&args, vk::Result::SUCCESS, &reply, &mut enumerate);
    assert_eq!(count, 1);

    let ask_for_count = Wire::default()
        .words(&[2, 1])
        .long(1)
        .long(1)
        .word(0)
        .long(0);
    let args: command::EnumeratePhysicalDevices<'_> = receives(&ask_for_count, &arena);
    assert!(args.p_physical_devices.is_null());
}

fn ids_of(ids: &[u64]) -> Vec<vk::PhysicalDevice> {
    ids.iter().copied().map(vk::PhysicalDevice).collect()
}

#[test]
fn blobs_are_padded_and_their_outputs_only_counted() {
    let push = Wire::default()
        .words(&[132, 0])
        .long(1)
        .long(2)
        .words(&[1, 0, 5])
        .long(5)
        .bytes(&[1, 2, 3, 4, 5, 0, 0, 0]);
    let mut values = [1, 2, 3, 4, 5];
    let args = command::CmdPushConstants {
        command_buffer: Object::guest(1),
        layout: Object::guest(2),
        stage_flags: vk::ShaderStageFlags::VERTEX,
        offset: 0,
        size: 5,
        p_values: Array::from(&mut values[..]),
    };
    sends(&args, false, &push);
    let arena = Arena::default();
    let args: command::CmdPushConstants<'_> = receives(&push, &arena);
    assert_eq!(*args.p_values, [1, 2, 3, 4, 5]);

    // vkGetPipelineCacheData: *pDataSize, then room for as many bytes.
    let get = Wire::default()
        .words(&[63, 1])
        .long(1)
        .long(2)
        .long(1)
        .long(6)
        .long(6);
    let mut args: command::GetPipelineCacheData<'_> = receives(&get, &arena);
    assert_eq!(args.p_data.len(), 6);
    args.p_data.copy_from_slice(b"abcdef");
    *args.p_data_size = 5;
    let mut size = 6;
    let mut room = [0; 6];
    let mut asker = command::GetPipelineCacheData {
        device: Object::guest(1),
        pipeline_cache: Object::guest(2),
        p_data_size: &mut size,
        p_data: Array::from(&mut room[..]),
    };
    sends(&asker, true, &get);
    let reply = Wire::default()
        .words(&[63, 5])
        .long(1)
        .long(5)
        .long(5)
        .bytes(b"abcde\0\0\0");
    assert_eq!(
        answers(&args, vk::Result::INCOMPLETE, &reply, &mut asker),
        5
    );
    assert_eq!(&room, b"abcde\0");
}

#[test]
fn unions_say_which_member_they_hold() {
    let wire = Wire::default()
        .words(&[119, 0])
        .long(1)
        .long(2)
        .word(7)
        .long(1) // pColor
        .word(2)
        .long(4)
        .words(&[1, 2, 3, 4]) // tag: uint32
        .word(1)
        .long(1)
        .words(&[1, 0, 1, 0, 1]);
    let mut color = vk::ClearColorValue {
        uint32: [1, 2, 3, 4],
    };
    let mut ranges = [vk::ImageSubresourceRange {
        aspect_mask: vk::ImageAspectFlags::COLOR,
        level_count: 1,
        layer_count: 1,
        ..Default::default()
    }];
    let args = command::CmdClearColorImage {
        command_buffer: Object::guest(1),
        image: Object::guest(2),
        image_layout: vk::ImageLayout::TRANSFER_DST_OPTIMAL,
        p_color: Some(&mut color),
        range_count: 1,
        p_ranges: Array::from(&mut ranges[..]),
    };
    sends(&args, false, &wire);
    let arena = Arena::default();
    let args: command::CmdClearColorImage<'_> = receives(&wire, &arena);
    // SAFETY: all members are four words.
    let words = unsafe { args.p_color.expect("a color").uint32 };
    assert_eq!(words, [1, 2, 3, 4]);
}

#[test]
fn a_host_address_range_sends_its_size_first() {
    // vkGetImageOpaqueCaptureDataEXT: one image, room for eight bytes.
    let request = Wire::default()
        .words(&[342, 1])
        .long(1)
        .word(1)
        .long(1)
        .long(5)
        .long(1)
        .long(8)
        .long(8);
    let arena = Arena::default();
    let args: command::GetImageOpaqueCaptureDataEXT<'_> = receives(&request, &arena);
    let range = args.p_datas[0];
    assert_eq!(range.size, 8);
    // SAFETY: room that the decoder made.
    unsafe { range.address.cast::<u64>().write(0x1122) };
    let mut buffer = [0; 64];
    let mut encoder = Encoder::new(&mut buffer);
    // SAFETY: decoded arguments.
    unsafe { args.encode_reply(vk::Result::SUCCESS, &mut encoder) }.expect("room enough");
    let expected = Wire::default()
        .words(&[342, 0])
        .long(1)
        .long(8)
        .long(8)
        .long(0x1122);
    let length = encoder.position();
    assert_eq!(buffer[..length], expected.0[..]);
}
