//! Makes seccomp filters of the tables in [`super::calls`] and installs them.
//!
//! A filter of `seccompiler` has one action for the calls that match it. So a table becomes several
//! filters, one for each answer; the kernel takes the strictest of their answers.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, apply_filter_all_threads,
};

use super::super::super::places::Role;
use super::calls::{Answer, BY_PATH, Condition, Group, INPUT, PROCESS, Test, WORKER};

/// What a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The whole process.
    Process(Role),
    /// A thread that serves an input device.
    Input,
}

/// Why a filter could not be installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error("this processor's calls are not known")]
    Processor,
    #[error(transparent)]
    Seccomp(#[from] seccompiler::Error),
    #[error(transparent)]
    Compile(#[from] seccompiler::BackendError),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The calls of one filter, with conditions. A call without rules matches always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Filters by their answer.
#[derive(Default)]
struct Tables {
    /// All calls that the table names.
    known: Rules,
    /// Those that fail, by their error.
    refused: BTreeMap<i32, Rules>,
    /// Those that a line names.
    named: Rules,
}

impl Tables {
    fn of(groups: &[Group], kind: Kind) -> Result<Self, FilterError> {
        let mut tables = Self::default();
        for group in groups {
            for (_, number) in group.calls {
                let number = plain(*number);
                tables.known.insert(number, Vec::new());
                match group.answer {
                    Answer::Allow => {}
                    Answer::Refuse(error) => {
                        tables.refuse(error).insert(number, Vec::new());
                    }
                    Answer::RefuseIf(conditions, error) => {
                        let rule = rule(conditions)?;
                        tables.refuse(error).entry(number).or_default().push(rule);
                    }
                    Answer::Unusual | Answer::Fatal => {
                        tables.named.insert(number, Vec::new());
                    }
                }
            }
        }
        if let Kind::Process(role) = kind {
            let makes = [libc::SYS_connect, libc::SYS_socket];
            let serves = [libc::SYS_bind, libc::SYS_listen];
            let sockets = role.sockets;
            for (is_needed, calls) in [(sockets.connects, makes), (sockets.serves, serves)] {
                if !is_needed {
                    tables.refuse_always(libc::EACCES, calls);
                }
            }
            if role.is_worker && !sockets.serves {
                tables.restrict(WORKER);
            }
        }
        Ok(tables)
    }

    /// Refuses calls that these tables allow.
    fn restrict(&mut self, groups: &[Group]) {
        for group in groups {
            if let Answer::Refuse(error) = group.answer {
                self.refuse_always(error, group.calls.iter().map(|(_, number)| *number));
            }
        }
    }

    /// Refuses calls, whatever their arguments are.
    fn refuse_always(&mut self, error: i32, calls: impl IntoIterator<Item = c_long>) {
        let calls = calls.into_iter().map(|number| (plain(number), Vec::new()));
        self.refuse(error).extend(calls);
    }

    fn refuse(&mut self, error: i32) -> &mut Rules {
        self.refused.entry(error).or_default()
    }
}

/// The call's number for seccompiler.
#[allow(clippy::useless_conversion, reason = "not on all processors")]
fn plain(number: c_long) -> i64 {
    number.into()
}

fn rule(conditions: &[Condition]) -> Result<SeccompRule, FilterError> {
    let condition = |condition: &Condition| {
        let (operator, value) = match condition.test {
            Test::Is(value) => (SeccompCmpOp::Eq, value),
            Test::IsNot(value) => (SeccompCmpOp::Ne, value),
            Test::IsNotOwnProcess => (SeccompCmpOp::Ne, std::process::id()),
            Test::Lacks(bits) => (SeccompCmpOp::MaskedEq(bits.into()), 0),
            Test::Has(bit) => (SeccompCmpOp::MaskedEq(bit.into()), bit),
        };
        let length = SeccompCmpArgLen::Dword;
        SeccompCondition::new(condition.argument, length, operator, value.into())
    };
    let conditions: Result<Vec<_>, _> = conditions.iter().map(condition).collect();
    Ok(SeccompRule::new(conditions?)?)
}

/// A filter with `matching` for the calls of `rules`, and `other` for all others.
fn program(
    rules: Rules,
    matching: SeccompAction,
    other: SeccompAction,
) -> Result<BpfProgram, FilterError> {
    let processor = TargetArch::try_from(std::env::consts::ARCH);
    let processor = processor.map_err(|_| FilterError::Processor)?;
    let filter = SeccompFilter::new(rules, other, matching, processor)?;
    Ok(filter.try_into()?)
}

fn unsigned(error: i32) -> u32 {
    error.cast_unsigned()
}

/// The filters of a kind that refuse. The broadest is the last, because each must still allow the
/// installation of the next.
fn refusing(kind: Kind) -> Result<Vec<BpfProgram>, FilterError> {
    let (groups, other) = match kind {
        Kind::Process(_) => (PROCESS, libc::ENOSYS),
        Kind::Input => (INPUT, libc::EPERM),
    };
    let tables = Tables::of(groups, kind)?;
    let mut programs = Vec::new();
    for (error, rules) in tables.refused {
        let answer = SeccompAction::Errno(unsigned(error));
        programs.push(program(rules, answer, SeccompAction::Allow)?);
    }
    if !tables.named.is_empty() {
        programs.push(program(
            tables.named,
            SeccompAction::Trap,
            SeccompAction::Allow,
        )?);
    }
    let other = SeccompAction::Errno(unsigned(other));
    programs.push(program(tables.known, SeccompAction::Allow, other)?);
    Ok(programs)
}

/// Installs the filters of the process on all of its threads.
///
/// # Errors
/// The system has no seccomp, or a thread of a driver has filters of its own.
pub(super) fn confine_process(role: Role) -> Result<(), FilterError> {
    for program in refusing(Kind::Process(role))? {
        apply_filter_all_threads(&program)?;
    }
    Ok(())
}

/// Installs the filters of a kind on the calling thread and on those that it starts.
///
/// # Errors
/// As [`confine_process`].
pub(super) fn confine_thread(kind: Kind) -> Result<(), FilterError> {
    for program in refusing(kind)? {
        apply_filter(&program)?;
    }
    Ok(())
}

/// Installs a filter that forbids nothing on all threads. Calls that [`confine_process`] would
/// refuse, and those that take a path, wait until the owner of the returned descriptor has seen
/// them. The kernel's audit log has the calls that no table names.
///
/// # Errors
/// As [`confine_process`]; Linux before 5.7 cannot do this.
pub(super) fn watch_process(role: Role) -> Result<OwnedFd, FilterError> {
    let tables = Tables::of(PROCESS, Kind::Process(role))?;
    let unknown = program(tables.known, SeccompAction::Allow, SeccompAction::Log)?;
    apply_filter_all_threads(&unknown)?;
    let mut seen = tables.named;
    for (call, rules) in tables.refused.into_values().flatten() {
        let all = seen.entry(call).or_insert_with(|| rules.clone());
        match rules.is_empty() {
            true => all.clear(),
            false => all.extend(rules),
        }
    }
    seen.extend(
        BY_PATH
            .iter()
            .map(|((_, number), _)| (plain(*number), Vec::new())),
    );
    let mut program = program(seen, SeccompAction::Trap, SeccompAction::Allow)?;
    for step in &mut program {
        // seccompiler has no name for this answer. Only returns have this value.
        if step.k == libc::SECCOMP_RET_TRAP {
            step.k = libc::SECCOMP_RET_USER_NOTIF;
        }
    }
    Ok(listen(&mut program)?)
}

/// Installs `program` on all threads and returns the descriptor that reports its calls.
fn listen(program: &mut BpfProgram) -> io::Result<OwnedFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC
        | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
        | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr().cast(),
    };
    // SAFETY: the kernel only reads the program, which lives through the call; its steps have the
    // layout of the kernel's.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    let listener = c_int::try_from(listener).map_err(io::Error::other)?;
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has made this descriptor for this call, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// Whether the kernel has seccomp with answers by signal.
pub(super) fn is_available() -> bool {
    let action: u32 = libc::SECCOMP_RET_TRAP;
    // SAFETY: the kernel only reads the number.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    answer == 0
}

#[cfg(test)]
mod tests {
    use super::super::super::super::places::Sockets;
    use super::super::calls::Call;
    use super::*;

    fn of_answer(wanted: impl Fn(&Answer) -> bool) -> Vec<&'static Call> {
        let groups = PROCESS.iter().filter(|group| wanted(&group.answer));
        groups.flat_map(|group| group.calls).collect()
    }

    const ALL_SOCKETS: Sockets = Sockets {
        connects: true,
        serves: true,
    };

    const WORKER_ROLE: Role = Role {
        is_worker: true,
        sockets: Sockets {
            connects: false,
            serves: false,
        },
    };

    /// Whether these tables refuse a call with any arguments.
    fn refuses(role: Role, call: c_long) -> bool {
        let tables = Tables::of(PROCESS, Kind::Process(role)).unwrap();
        let always = |rules: &Rules| rules.get(&plain(call)).is_some_and(Vec::is_empty);
        tables.refused.values().any(always)
    }

    #[test]
    fn a_worker_may_do_less_than_the_main_process() {
        let main = Role {
            is_worker: false,
            sockets: Sockets::default(),
        };
        let nvidia = Role {
            sockets: ALL_SOCKETS,
            ..WORKER_ROLE
        };
        for call in [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_listen,
        ] {
            assert!(refuses(WORKER_ROLE, call) && refuses(main, call), "{call}");
            assert!(!refuses(nvidia, call), "{call}: CUDA needs it");
        }
        for call in [
            libc::SYS_socketpair,
            libc::SYS_accept4,
            libc::SYS_inotify_init1,
            libc::SYS_shmget,
            libc::SYS_truncate,
        ] {
            assert!(refuses(WORKER_ROLE, call) && !refuses(main, call), "{call}");
        }
        // What a context and its driver cannot do without.
        for call in [
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_openat,
            libc::SYS_mmap,
            libc::SYS_memfd_create,
            libc::SYS_ioctl,
        ] {
            assert!(!refuses(WORKER_ROLE, call), "{call}");
        }
    }

    #[test]
    fn no_call_has_two_answers() {
        for table in [PROCESS, INPUT, WORKER] {
            let mut numbers: Vec<_> = table
                .iter()
                .flat_map(|group| group.calls.iter().map(|(_, number)| *number))
                .collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), all);
        }
    }

    #[test]
    fn a_thread_may_make_no_call_that_its_process_may_not() {
        let allowed = of_answer(|answer| {
            matches!(
                answer,
                Answer::Allow | Answer::RefuseIf(..) | Answer::Refuse(libc::ENOSYS)
            )
        });
        for group in INPUT {
            for call in group.calls {
                assert!(allowed.contains(&call), "{}", call.0);
            }
        }
    }

    #[test]
    fn what_escapes_a_process_is_fatal() {
        let fatal = of_answer(|answer| matches!(answer, Answer::Fatal));
        for number in [
            libc::SYS_execve,
            libc::SYS_ptrace,
            libc::SYS_mount,
            libc::SYS_bpf,
            libc::SYS_process_vm_writev,
            libc::SYS_init_module,
            libc::SYS_keyctl,
            libc::SYS_userfaultfd,
            libc::SYS_setuid,
        ] {
            assert!(fatal.iter().any(|call| call.1 == number), "{number}");
        }
    }

    #[test]
    fn the_filters_compile_and_are_short_enough_for_the_kernel() {
        let kinds = [
            Kind::Process(Role::default()),
            Kind::Process(Role {
                is_worker: false,
                sockets: ALL_SOCKETS,
            }),
            Kind::Process(WORKER_ROLE),
            Kind::Input,
        ];
        for kind in kinds {
            for program in refusing(kind).unwrap() {
                assert!(program.len() < 4096, "{kind:?}: {}", program.len());
            }
        }
    }
}
