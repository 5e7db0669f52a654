//! The ids of the objects of [`super::session::Session`].

use hesper_venus_protocol::runtime::Object;

/// Ids of the session begin here. The value stands for nothing else in the stream.
pub const FIRST_ID: u64 = 0x5a5a_0000;

/// One object of each kind, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Id {
    Instance = FIRST_ID,
    Physical,
    Device,
    Queue,
    Buffer,
    Memory,
    Shader,
    SetLayout,
    PipelineLayout,
    Pipeline,
    DescriptorPool,
    DescriptorSet,
    CommandPool,
    Commands,
    Fence,
    Semaphore,
    QueryPool,
    Cache,
    Image,
    Event,
    /// Destroyed at the end of the session.
    Gone,
    /// What may come after the session.
    Next,
}

impl Id {
    /// All ids as numbers.
    pub fn all() -> impl Iterator<Item = u64> {
        Self::Instance as u64..=Self::Next as u64
    }
}

/// An argument that names an object.
pub fn object<H: hesper_venus_protocol::runtime::Handle>(id: Id) -> Object<H> {
    Object::guest(id as u64)
}
