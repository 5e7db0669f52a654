//! Calls the driver's functions with decoded arguments.
//!
//! [`EntryTable`], [`InstanceTable`] and [`DeviceTable`] hold the driver's functions. [`Call`]
//! calls a command's function. Commands of `VK_MESA_venus_protocol` have none.

pub use crate::generated::calls::{DeviceTable, EntryTable, InstanceTable};
use crate::runtime::Command;

/// A Vulkan function of any type. It must be cast to the type of its name before it is called.
pub type Function = unsafe extern "system" fn();

/// A command for which the driver has a function.
pub trait Call<'a>: Command<'a> {
    /// The table that holds its function.
    type Table;

    /// Calls the driver; `None` when the driver has no such function, or it is not enabled. Outputs
    /// are written to the memory of the arguments.
    ///
    /// # Safety
    /// Handles must be live objects of the driver that filled `table`. The arguments must be such
    /// as the driver may be called with.
    unsafe fn call(&mut self, table: &Self::Table) -> Option<Self::Return>;
}
