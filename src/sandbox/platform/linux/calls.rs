//! Which system calls Hesper may make after its start, as tables with the reasons.
//!
//! [`PROCESS`] is for the whole process: Vulkan drivers run in it, create threads in it, compile
//! shaders in it, and open files that Landlock guards. [`INPUT`] is for threads that need no
//! driver. [`WORKER`] is what a worker is refused besides. A further kind of thread or process is a
//! further table and a variant of `Kind` (`super::filter`). What no table names gives `ENOSYS`, as
//! on an older kernel.

use libc::c_long;

/// A system call's name and number.
pub(super) type Call = (&'static str, c_long);

/// What happens when a call is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// It is executed.
    Allow,
    /// It fails with this error, without a message: programs try it and can do without.
    Refuse(i32),
    /// It is executed, unless all conditions hold: then it fails with this error.
    RefuseIf(&'static [Condition], i32),
    /// It fails with `ENOSYS`, and a line names it the first time.
    Unusual,
    /// A line names it, and the process ends: Hesper and drivers never make it.
    Fatal,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition {
    /// The argument's place, from 0.
    pub(super) argument: u8,
    pub(super) test: Test,
}

/// What an argument is compared with, as 32 bits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Is(u32),
    IsNot(u32),
    /// Not this process's id.
    IsNotOwnProcess,
    /// All of these bits are clear.
    Lacks(u32),
    /// This one bit is set.
    Has(u32),
}

/// Calls with the same answer for the same reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) answer: Answer,
    /// Shown in the documentation and by the log mode.
    pub(super) why: &'static str,
    pub(super) calls: &'static [Call],
}

/// Names and numbers of calls, by the C library's constants.
macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// A thread of this process; a call that starts another process lacks it.
const THREAD: u32 = libc::CLONE_THREAD.cast_unsigned();

/// Memory whose bytes can be executed.
const EXECUTABLE: u32 = libc::PROT_EXEC.cast_unsigned();

/// An argument of a call.
const fn argument(argument: u8, test: Test) -> Condition {
    Condition { argument, test }
}

/// The table of the whole process.
pub(super) const PROCESS: &[Group] = &[
    Group {
        answer: Answer::Allow,
        why: "read, write and describe what is open",
        calls: calls!(
            SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64
            SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2 SYS_lseek SYS_close
            SYS_close_range SYS_fstat SYS_fsync SYS_fdatasync SYS_ftruncate
            SYS_fallocate SYS_fadvise64 SYS_fcntl SYS_flock SYS_dup SYS_dup3
            SYS_sendfile SYS_copy_file_range SYS_readahead SYS_sync_file_range
        ),
    },
    Group {
        answer: Answer::Allow,
        why: "files by path: Landlock decides which",
        calls: calls!(
            SYS_openat SYS_openat2 SYS_newfstatat SYS_statx SYS_faccessat
            SYS_faccessat2 SYS_readlinkat SYS_getdents64 SYS_getcwd SYS_mkdirat
            SYS_unlinkat SYS_renameat2 SYS_statfs SYS_fstatfs SYS_truncate SYS_umask
            SYS_utimensat SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
        ),
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        answer: Answer::Allow,
        why: "the same by their old names, which programs and drivers still use",
        calls: calls!(
            SYS_open SYS_stat SYS_lstat SYS_access SYS_readlink SYS_mkdir SYS_rmdir
            SYS_unlink SYS_rename SYS_creat SYS_getdents SYS_utime SYS_utimes
            SYS_futimesat SYS_inotify_init SYS_renameat
        ),
    },
    #[cfg(target_arch = "aarch64")]
    Group {
        answer: Answer::Allow,
        why: "the same by its older name",
        calls: calls!(SYS_renameat),
    },
    Group {
        answer: Answer::Allow,
        why: "memory; drivers that compile shaders make it executable",
        calls: calls!(
            SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_pkey_mprotect
            SYS_pkey_alloc SYS_pkey_free SYS_madvise SYS_mincore SYS_mlock SYS_mlock2
            SYS_munlock SYS_mlockall SYS_munlockall SYS_msync SYS_brk SYS_memfd_create
            SYS_membarrier SYS_mbind SYS_get_mempolicy SYS_set_mempolicy
            SYS_move_pages SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl SYS_mseal
        ),
    },
    Group {
        answer: Answer::Allow,
        why: "threads and their order",
        calls: calls!(
            SYS_exit SYS_exit_group SYS_futex SYS_futex_waitv SYS_set_robust_list
            SYS_get_robust_list SYS_set_tid_address SYS_rseq SYS_gettid SYS_getpid
            SYS_getppid SYS_getpgid SYS_getsid SYS_sched_yield SYS_sched_getaffinity
            SYS_sched_setaffinity SYS_sched_getparam SYS_sched_setparam
            SYS_sched_getscheduler SYS_sched_setscheduler SYS_sched_get_priority_max
            SYS_sched_get_priority_min SYS_sched_rr_get_interval SYS_sched_getattr
            SYS_sched_setattr SYS_getpriority SYS_setpriority SYS_ioprio_get
            SYS_ioprio_set SYS_getcpu SYS_wait4 SYS_waitid SYS_restart_syscall
            SYS_kcmp
        ),
    },
    Group {
        answer: Answer::RefuseIf(&[argument(0, Test::Lacks(THREAD))], libc::EPERM),
        why: "a thread, but no process",
        calls: calls!(SYS_clone),
    },
    Group {
        answer: Answer::Refuse(libc::ENOSYS),
        why: "clone3 has its flags in memory, where a filter cannot see them; C libraries use clone then",
        calls: calls!(SYS_clone3),
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        answer: Answer::Refuse(libc::EPERM),
        why: "no process",
        calls: calls!(SYS_fork SYS_vfork),
    },
    Group {
        answer: Answer::Allow,
        why: "signals",
        calls: calls!(
            SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending
            SYS_rt_sigtimedwait SYS_rt_sigsuspend SYS_sigaltstack SYS_signalfd4
        ),
    },
    Group {
        answer: Answer::RefuseIf(&[argument(0, Test::IsNotOwnProcess)], libc::EPERM),
        why: "signals to this process alone",
        calls: calls!(SYS_kill SYS_tgkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo),
    },
    Group {
        answer: Answer::Allow,
        why: "time",
        calls: calls!(
            SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep
            SYS_gettimeofday SYS_timer_create SYS_timer_settime SYS_timer_gettime
            SYS_timer_getoverrun SYS_timer_delete SYS_timerfd_create
            SYS_timerfd_settime SYS_timerfd_gettime SYS_getitimer SYS_setitimer
            SYS_times
        ),
    },
    Group {
        answer: Answer::Allow,
        why: "waiting",
        calls: calls!(
            SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait
            SYS_epoll_pwait2 SYS_eventfd2 SYS_pipe2
        ),
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        answer: Answer::Allow,
        why: "the same by their old names; one for threads of x86",
        calls: calls!(
            SYS_poll SYS_select SYS_epoll_create SYS_epoll_wait SYS_pipe SYS_dup2
            SYS_eventfd SYS_signalfd SYS_alarm SYS_pause SYS_time SYS_getpgrp
            SYS_arch_prctl SYS_getrlimit
        ),
    },
    Group {
        answer: Answer::Allow,
        why: "connected sockets",
        calls: calls!(
            SYS_accept4 SYS_accept SYS_getsockname SYS_getpeername SYS_getsockopt
            SYS_setsockopt SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg
            SYS_recvmmsg SYS_sendmmsg SYS_shutdown
        ),
    },
    Group {
        answer: Answer::RefuseIf(
            &[argument(0, Test::IsNot(libc::AF_UNIX.cast_unsigned()))],
            libc::EACCES,
        ),
        why: "no network and no netlink",
        calls: calls!(SYS_socket SYS_socketpair),
    },
    Group {
        answer: Answer::Allow,
        why: "to the display server, the compositor, or for NVIDIA's driver; without these it is refused",
        calls: calls!(SYS_connect),
    },
    Group {
        answer: Answer::Allow,
        why: "for NVIDIA's driver; without it they are refused, because all sockets that Hesper serves are open",
        calls: calls!(SYS_bind SYS_listen),
    },
    Group {
        answer: Answer::Allow,
        why: "facts about the machine and the user",
        calls: calls!(
            SYS_getrandom SYS_uname SYS_sysinfo SYS_getuid SYS_geteuid SYS_getgid
            SYS_getegid SYS_getgroups SYS_getresuid SYS_getresgid SYS_getrusage
            SYS_capget
        ),
    },
    Group {
        answer: Answer::RefuseIf(
            &[
                argument(0, Test::IsNot(0)),
                argument(0, Test::IsNotOwnProcess),
            ],
            libc::EPERM,
        ),
        why: "limits of this process alone",
        calls: calls!(SYS_prlimit64),
    },
    Group {
        answer: Answer::RefuseIf(&[argument(1, Test::Is(libc::TIOCSTI as u32))], libc::EPERM),
        why: "devices; no typing into the terminal from which Hesper was started",
        calls: calls!(SYS_ioctl),
    },
    Group {
        answer: Answer::RefuseIf(
            &[argument(0, Test::Is(libc::PR_SET_PTRACER.cast_unsigned()))],
            libc::EPERM,
        ),
        why: "names of threads and the like; nobody is invited to read this process",
        calls: calls!(SYS_prctl),
    },
    Group {
        answer: Answer::Allow,
        why: "further filters, which can only forbid more",
        calls: calls!(SYS_seccomp),
    },
    Group {
        answer: Answer::Refuse(libc::EPERM),
        why: "modes, owners and links: Landlock does not guard all of them, and nothing here changes them",
        calls: calls!(
            SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_mknodat SYS_symlinkat
            SYS_linkat SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr
            SYS_lremovexattr SYS_fremovexattr
        ),
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        answer: Answer::Refuse(libc::EPERM),
        why: "the same by their old names",
        calls: calls!(SYS_chmod SYS_chown SYS_lchown SYS_mknod SYS_symlink SYS_link),
    },
    Group {
        answer: Answer::Refuse(libc::EOPNOTSUPP),
        why: "libraries ask, and can do without",
        calls: calls!(
            SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr
            SYS_flistxattr SYS_name_to_handle_at
        ),
    },
    Group {
        answer: Answer::Refuse(libc::ENOSYS),
        why: "a large part of the kernel that programs try first",
        calls: calls!(
            SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_pidfd_open
            SYS_memfd_secret
        ),
    },
    Group {
        answer: Answer::Refuse(libc::EACCES),
        why: "performance counters; drivers can do without",
        calls: calls!(SYS_perf_event_open),
    },
    Group {
        answer: Answer::Unusual,
        why: "harmless or nearly so, but nothing here is known to make them",
        calls: calls!(
            SYS_chdir SYS_fchdir SYS_splice SYS_tee SYS_vmsplice SYS_io_setup
            SYS_io_destroy SYS_io_submit SYS_io_cancel SYS_io_getevents SYS_mq_open
            SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify
            SYS_mq_getsetattr SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_semget
            SYS_semop SYS_semctl SYS_semtimedop SYS_personality SYS_setpgid SYS_setsid
            SYS_sync SYS_syncfs SYS_process_madvise SYS_process_mrelease
            SYS_pidfd_send_signal SYS_tkill SYS_landlock_create_ruleset
            SYS_landlock_add_rule SYS_landlock_restrict_self SYS_remap_file_pages
            SYS_migrate_pages SYS_vhangup SYS_fanotify_init SYS_fanotify_mark
        ),
    },
    Group {
        answer: Answer::Fatal,
        why: "another program",
        calls: calls!(SYS_execve SYS_execveat),
    },
    Group {
        answer: Answer::Fatal,
        why: "the memory and files of other processes",
        calls: calls!(
            SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_getfd
            SYS_open_by_handle_at
        ),
    },
    Group {
        answer: Answer::Fatal,
        why: "another user",
        calls: calls!(
            SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid
            SYS_setresgid SYS_setfsuid SYS_setfsgid SYS_setgroups SYS_capset
        ),
    },
    Group {
        answer: Answer::Fatal,
        why: "another view of the system",
        calls: calls!(
            SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_move_mount
            SYS_open_tree SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
            SYS_mount_setattr SYS_unshare SYS_setns SYS_swapon SYS_swapoff
            SYS_quotactl SYS_acct
        ),
    },
    Group {
        answer: Answer::Fatal,
        why: "the kernel itself",
        calls: calls!(
            SYS_bpf SYS_kexec_load SYS_init_module SYS_finit_module SYS_delete_module
            SYS_add_key SYS_request_key SYS_keyctl SYS_userfaultfd SYS_reboot
            SYS_syslog SYS_settimeofday SYS_clock_settime SYS_adjtimex
            SYS_clock_adjtime SYS_sethostname SYS_setdomainname
        ),
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        answer: Answer::Fatal,
        why: "the kernel itself, on x86",
        calls: calls!(SYS_kexec_file_load SYS_iopl SYS_ioperm SYS_modify_ldt),
    },
];

/// The table of threads that serve an input device: they read the guest's queues and use no driver.
/// It is applied on top of [`PROCESS`]. Everything else fails with `EPERM`.
pub(super) const INPUT: &[Group] = &[
    Group {
        answer: Answer::Allow,
        why: "the socket, the queues and their events",
        calls: calls!(
            SYS_read SYS_write SYS_readv SYS_writev SYS_close SYS_fcntl SYS_dup
            SYS_dup3 SYS_lseek SYS_fstat SYS_newfstatat SYS_statx SYS_sendmsg
            SYS_recvmsg SYS_sendto SYS_recvfrom SYS_accept4 SYS_accept SYS_getsockopt
            SYS_setsockopt SYS_getsockname SYS_getpeername SYS_shutdown SYS_ppoll
            SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_eventfd2 SYS_pipe2
            SYS_ioctl
        ),
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        answer: Answer::Allow,
        why: "the same by their old names",
        calls: calls!(SYS_poll SYS_epoll_wait SYS_lstat SYS_stat SYS_eventfd SYS_unlink),
    },
    Group {
        answer: Answer::Allow,
        why: "the socket's file is removed at the end",
        calls: calls!(SYS_unlinkat),
    },
    Group {
        answer: Answer::Allow,
        why: "memory of the guest and of the heap",
        calls: calls!(
            SYS_munmap SYS_mremap SYS_madvise SYS_brk SYS_memfd_create SYS_ftruncate
            SYS_membarrier
        ),
    },
    Group {
        answer: Answer::RefuseIf(&[argument(2, Test::Has(EXECUTABLE))], libc::EPERM),
        why: "memory, but no code",
        calls: calls!(SYS_mmap SYS_mprotect),
    },
    Group {
        answer: Answer::Allow,
        why: "threads, signals and time",
        calls: calls!(
            SYS_exit SYS_exit_group SYS_futex SYS_set_robust_list SYS_rseq SYS_gettid
            SYS_getpid SYS_sched_yield SYS_sched_getaffinity SYS_clone SYS_clone3
            SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sigaltstack
            SYS_tgkill SYS_restart_syscall SYS_prctl SYS_clock_gettime
            SYS_clock_nanosleep SYS_nanosleep SYS_getrandom
        ),
    },
];

/// What a worker is refused although [`PROCESS`] allows it. A worker has one context of a guest and
/// its driver; windows, the VM and the display server are the main process'. NVIDIA's driver makes
/// sockets for CUDA, and nobody has seen what else CUDA needs, so this is not for that driver.
pub(super) const WORKER: &[Group] = &[
    Group {
        answer: Answer::Refuse(libc::EACCES),
        why: "a worker has its two sockets",
        calls: calls!(
            SYS_socket SYS_socketpair SYS_connect SYS_bind SYS_listen SYS_accept SYS_accept4
        ),
    },
    Group {
        answer: Answer::Refuse(libc::EACCES),
        why: "a worker watches no files",
        calls: calls!(SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch),
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        answer: Answer::Refuse(libc::EACCES),
        why: "the same by its old name",
        calls: calls!(SYS_inotify_init),
    },
    Group {
        answer: Answer::Refuse(libc::EACCES),
        why: "memory that a key names, for other programs; an X server's",
        calls: calls!(SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl),
    },
    Group {
        answer: Answer::Refuse(libc::EACCES),
        why: "files by path that a worker's driver has no reason to cut",
        calls: calls!(SYS_truncate),
    },
];

/// The calls by which a process opens files or changes folders, with the place of the path among
/// the arguments. The log mode looks at them.
pub(super) const BY_PATH: &[(Call, u8)] = &[
    (("SYS_openat", libc::SYS_openat), 1),
    #[cfg(target_arch = "x86_64")]
    (("SYS_open", libc::SYS_open), 0),
    (("SYS_unlinkat", libc::SYS_unlinkat), 1),
    #[cfg(target_arch = "x86_64")]
    (("SYS_unlink", libc::SYS_unlink), 0),
    (("SYS_mkdirat", libc::SYS_mkdirat), 1),
    #[cfg(target_arch = "x86_64")]
    (("SYS_mkdir", libc::SYS_mkdir), 0),
];

/// A call's name without the constant's prefix; its number when no table has it.
pub(super) fn name(number: c_long) -> Option<&'static str> {
    let mut calls = PROCESS.iter().flat_map(|group| group.calls);
    let (name, _) = calls.find(|(_, known)| *known == number)?;
    Some(name.strip_prefix("SYS_").unwrap_or(name))
}

/// The group of a call in the table of the process.
pub(super) fn group(number: c_long) -> Option<&'static Group> {
    let has = |group: &&Group| group.calls.iter().any(|(_, known)| *known == number);
    PROCESS.iter().find(has)
}
