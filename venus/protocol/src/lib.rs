//! The Venus wire protocol: Vulkan's types, the host's codecs, and the other side for tests.
//!
//! A guest's Vulkan driver sends commands as one stream of little-endian words, without framing,
//! and gets replies the same way. This crate knows every byte of both, and nothing else: no
//! objects, no driver, no threads. Nearly all of it is generated (`venus/codegen`). The rest is
//! written by hand, for the generated code to use.
//!
//! | to | use |
//! |---|---|
//! | read a stream | [`runtime::Decoder`], [`runtime::Arena`] |
//! | provide the object table | [`runtime::HandleMap`] |
//! | read arguments | the structs of [`command`], made of [`vk`] types laid out as in C |
//! | change a chain before the driver sees it | [`runtime::find_mut`], [`runtime::unlink`] |
//! | call the driver | [`call`] |
//! | check numbers before that | [`rules`] |
//! | reply | [`runtime::Encoder`], [`Command::encode_reply`](runtime::Command::encode_reply) |
//! | look up commands and extensions | [`CommandId`], [`COMMANDS`], [`EXTENSIONS`], [`table`] |
//! | find a command's length, or refuse it | [`extent`] |
//! | log commands | [`trace`] |
//! | act as the guest | [`guest`], and [`sample`] for random requests |
//!
//! # A handler
//!
//! Decoding replaces ids with the driver's handles, so that a handler can pass the arguments to the
//! driver unchanged. Arguments live in the arena until it is reset.
//!
//! - An object argument is an [`Object`](runtime::Object): the driver's handle and the guest's id.
//! - A pointer to one value is a reference, or an `Option` of a reference where it may be null. A
//!   pointer to several is an [`Array`](runtime::Array). Arrays of objects also keep the ids
//!   ([`Objects`](runtime::Objects)) in commands that are not recorded: those commands free the
//!   objects, wait for them or reset them.
//! - An output is memory in the arena to which the driver can write: sType, pNext and the sizes of
//!   its arrays are set, the rest is zero. The output for a **new** object holds the id that the
//!   guest chose. It stays there for the reply, and the handle goes to the object table.
//!
//! ```
//! use hesper_venus_protocol::runtime::{
//!     Arena, Command, Decoder, Encoder, HandleMap, Object, Resolved,
//! };
//! use hesper_venus_protocol::{CommandId, command, guest, vk};
//!
//! /// A renderer that knows one device.
//! struct Renderer {
//!     device: vk::Device,
//! }
//!
//! impl HandleMap for Renderer {
//!     fn resolve(&self, ty: vk::HandleType, id: u64) -> Resolved {
//!         match (ty, id) {
//!             (vk::HandleType::Device, 1) => Resolved { handle: self.device.0, owner: 0 },
//!             _ => Resolved::UNKNOWN,
//!         }
//!     }
//! }
//!
//! /// Stands for the driver's function.
//! unsafe fn driver_create_buffer(
//!     _device: vk::Device,
//!     info: &vk::BufferCreateInfo,
//!     buffer: &mut vk::Buffer,
//! ) -> vk::Result {
//!     *buffer = vk::Buffer(0xd00d + info.size);
//!     vk::Result::SUCCESS
//! }
//!
//! fn create_buffer(args: &mut command::CreateBuffer<'_>) -> vk::Result {
//!     let id = args.p_buffer.0; // the guest's id
//!     let mut buffer = vk::Buffer(0);
//!     // SAFETY: the device is alive, and the arguments were decoded.
//!     let result =
//!         unsafe { driver_create_buffer(args.device.handle, args.p_create_info, &mut buffer) };
//!     // Here the object table would store the handle `buffer` for `id`.
//!     assert_eq!((id, buffer.0), (9, 0xd00d + 64));
//!     result
//! }
//!
//! // The guest sends a command:
//! let mut info = vk::BufferCreateInfo { size: 64, ..Default::default() };
//! let mut buffer = vk::Buffer(9);
//! let mut asked = command::CreateBuffer {
//!     device: Object::guest(1),
//!     p_create_info: &mut info,
//!     p_buffer: &mut buffer,
//! };
//! let mut stream = Vec::new();
//! // SAFETY: all pointers are valid.
//! unsafe { guest::encode(&asked, true, &mut stream) };
//!
//! // The renderer does this for each command of a stream:
//! let renderer = Renderer { device: vk::Device(0xdef1ce) };
//! let arena = Arena::default();
//! let mut reply_memory = [0; 256];
//! let mut encoder = Encoder::new(&mut reply_memory);
//! let mut decoder = Decoder::new(&mut stream, &arena, &renderer);
//! let header = decoder.header()?;
//! match header.command {
//!     CommandId::CreateBuffer => {
//!         let mut args = command::CreateBuffer::decode(&mut decoder)?;
//!         let result = create_buffer(&mut args);
//!         if header.reply {
//!             // SAFETY: outputs are as decoded.
//!             unsafe { args.encode_reply(result, &mut encoder) }.unwrap();
//!         }
//!     }
//!     other => unimplemented!("{}", other.name()),
//! }
//! let length = encoder.position();
//!
//! // The guest reads the reply:
//! // SAFETY: all pointers are valid.
//! let (result, _) = unsafe { guest::decode_reply(&mut asked, &reply_memory[..length]) }.unwrap();
//! assert_eq!(result, vk::Result::SUCCESS.0 as u64);
//! # Ok::<(), hesper_venus_protocol::runtime::Fatal>(())
//! ```
//!
//! # What the decoder guarantees
//!
//! The stream comes from the guest and may be hostile. After a successful decode:
//!
//! - Pointers are null, or point to as many valid elements as their length says. The elements are
//!   in the arena or in the stream's memory.
//! - Strings end with NUL.
//! - sTypes are those that belong in that place. An input chain holds each at most once, unless the
//!   registry allows it to repeat. An output chain holds all structs that the guest sent.
//! - Unions are read by the tag that the selector demands.
//! - Objects exist and have the right type.
//! - Allocators and host pointers are null.
//!
//! Counts are checked against the bytes that are left, and all allocations against the arena's
//! budget, before memory is allocated. Any bits are a valid enum, flag or boolean. The needed stack
//! is bounded: types nest at most nine deep (the generator proves that no struct can contain
//! itself), and chains are walked in a loop.
//!
//! The decoder does **not** check the API's valid usage: whether an object of the right type may be
//! used *here*, whether sizes fit the objects that they are about, whether an extension was
//! enabled. What the registry leaves to valid usage (`optional`, `noautovalidity`) may be null
//! whatever its count: of the three arrays of a `VkWriteDescriptorSet`, a hostile guest may leave
//! out the one that its type needs. Handlers must check this before they call the driver.
//!
//! A null object is an error where the API does not allow null. The stream must be private memory:
//! bytes that the guest can still change must be copied before they are decoded.

pub mod call;
mod command_info;
pub mod extent;
pub mod features;
pub mod format;
#[allow(
    missing_docs,
    unused_imports,
    clippy::unnecessary_cast,
    clippy::manual_div_ceil,
    clippy::erasing_op,
    clippy::unit_arg,
    reason = "one emitter serves every case: names are the specification's, imports and casts are \
              those that some case needs"
)]
mod generated;
pub mod guest;
pub(crate) mod layout;
mod macros;
#[cfg(test)]
mod roundtrip;
#[cfg(test)]
mod rows;
pub mod rules;
pub mod runtime;
pub mod sample;
pub mod table;
pub mod trace;

pub use command_info::CommandInfo;
pub use generated::command;
pub use generated::commands::COMMANDS;
pub use generated::core::{CORE_COMMANDS, PROVIDERS};
pub use generated::extensions::EXTENSIONS;
pub use generated::numbers::{COMMAND_COUNT, CommandId};
pub(crate) use generated::schema;

/// Vulkan's types.
pub mod vk {
    pub use crate::generated::types::*;

    /// `VkBool32`.
    pub type Bool32 = u32;
    /// `VkDeviceSize`.
    pub type DeviceSize = u64;
    /// `VkDeviceAddress`.
    pub type DeviceAddress = u64;
    /// `VkSampleMask`.
    pub type SampleMask = u32;
}
