//! What a session does while it waits: which handles it keeps, and what a trace shows.

use hesper_venus_protocol::CommandId;

use super::Session;
use crate::object::reclamation::Class;
use crate::trace::Span;

impl Session<'_> {
    /// Waits for something that may take long, without any handle. The caller must not use handles
    /// of the current command after that.
    pub(crate) fn at_rest<R>(&mut self, wait: impl FnOnce(&mut Self) -> R) -> R {
        self.member.end();
        let began = self.lane.begin();
        let result = wait(self);
        self.lane
            .end_command(began, Span::Wait, self.activity.command());
        self.member.begin();
        result
    }

    /// Waits for what a command waits for, so that a trace shows it.
    pub(crate) fn waiting<R>(
        &mut self,
        command: CommandId,
        wait: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let began = self.lane.begin();
        let result = wait(self);
        self.lane.end_command(began, Span::Wait, command as u32);
        result
    }

    /// Does something that may take long with handles of one class only. The caller must not use
    /// others of the current command after that.
    pub(crate) fn with_only<R>(&mut self, class: Class, act: impl FnOnce(&mut Self) -> R) -> R {
        self.member.keep_only(class);
        let result = act(self);
        self.member.widen();
        result
    }

    /// Called now and then in [`Session::with_only`] of [`Class::Sync`]. False when another thread
    /// destroys one of these `handles`.
    pub(crate) fn may_wait_on(&self, handles: &[u64]) -> bool {
        self.member.look_again(handles)
    }
}
