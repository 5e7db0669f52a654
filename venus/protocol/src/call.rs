//! Calls the driver's functions with decoded arguments.
//!
//! [`EntryTable`], [`InstanceTable`] and [`DeviceTable`] hold the driver's functions. [`Call`]
//! calls a command's function. Commands of `VK_MESA_venus_protocol` have none.

pub use crate::generated::calls::{DeviceTable, EntryTable, InstanceTable};
use crate::rules::Rules;
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

    /// Checks the numbers that drivers do not check. To be called before [`Call::call`].
    ///
    /// # Errors
    /// What is wrong, by the rule that is broken.
    #[inline]
    fn check<R: Rules>(&self, _rules: &R) -> Result<(), R::Broken> {
        Ok(())
    }

    /// Keeps what the rules need of the objects that the driver has just made. To be called while
    /// the outputs hold the driver's handles.
    #[inline]
    fn keep<R: Rules>(&self, _result: Self::Return, _rules: &R) {}
}
