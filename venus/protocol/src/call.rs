//! Calling the driver with decoded arguments.
//!
//! [`EntryTable`], [`InstanceTable`] and [`DeviceTable`] are the driver's functions; every command but
//! the private ones calls its own through [`Call`].

pub use crate::generated::calls::{DeviceTable, EntryTable, InstanceTable};
use crate::runtime::Command;

/// A function of Vulkan, to be seen as what its name says.
pub type Function = unsafe extern "system" fn();

/// A command that the driver has a function for.
pub trait Call<'a>: Command<'a> {
    /// The table that its function is in.
    type Table;

    /// Calls the driver; `None` when it has no such function, or it was not enabled. Outputs are
    /// written to the arguments' own memory.
    ///
    /// # Safety
    /// Handles must be live objects of the driver that `table` is of, and the arguments such as the driver may
    /// be called with.
    unsafe fn call(&mut self, table: &Self::Table) -> Option<Self::Return>;
}
