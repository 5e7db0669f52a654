//! The backend channel: config changes, and blobs in the host-visible window.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hesper_vhost::budget::Charge;
use hesper_vhost::renderer::{
    Blob, BlobRequest, CapsetInfo, Completions, Context, ContextId, MapCaching, NewContext,
    Renderer, RendererError, ResourceId,
};
use rustix::fs::{MemfdFlags, memfd_create};
use vhost::VhostBackend;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserSharedMsg};
use vhost::vhost_user::{HandlerResult, VhostUserFrontendReqHandlerMut};

use crate::commands::{create_blob, create_context, display_info};
use crate::served::{MONITOR, Parts, Served};
use hesper_mock_frontend::{Machine, eventually};
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

/// What the device asked the VMM for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    ConfigChange,
    Map {
        region: u8,
        offset: u64,
        len: u64,
        /// The first byte of the mapped file, to see that it is the right one.
        first: u8,
    },
    Barrier,
    Unmap {
        offset: u64,
        len: u64,
    },
}

/// A VMM: what it was asked for, and the memory that it mapped last.
#[derive(Default)]
pub(crate) struct Vmm(pub(crate) Vec<Asked>, pub(crate) Option<File>);

impl VhostUserFrontendReqHandlerMut for Vmm {
    fn handle_config_change(&mut self) -> HandlerResult<u64> {
        self.0.push(Asked::ConfigChange);
        Ok(0)
    }

    fn shared_object_remove(&mut self, _: &VhostUserSharedMsg) -> HandlerResult<u64> {
        self.0.push(Asked::Barrier);
        Ok(1)
    }

    fn shmem_map(&mut self, request: &VhostUserMMap, fd: &dyn AsRawFd) -> HandlerResult<u64> {
        // The crate closes the descriptor afterwards.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut first = [0];
        let file = File::options().read(true).write(true).open(path)?;
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut first, request.fd_offset)?;
        self.1 = Some(file);
        self.0.push(Asked::Map {
            region: request.shmid,
            offset: request.shm_offset,
            len: request.len,
            first: first[0],
        });
        Ok(0)
    }

    fn shmem_unmap(&mut self, request: &VhostUserMMap) -> HandlerResult<u64> {
        self.0.push(Asked::Unmap {
            offset: request.shm_offset,
            len: request.len,
        });
        Ok(0)
    }
}

/// Gives the guest a VMM that answers on its own thread.
pub(crate) fn attach(guest: &mut Machine) -> Arc<Mutex<Vmm>> {
    let vmm = Arc::new(Mutex::new(Vmm::default()));
    guest.serve(Arc::clone(&vmm));
    vmm
}

#[test]
fn a_changed_monitor_notifies_the_guest() {
    let served = Served::new(Parts::default());
    let mut guest = Machine::boot(&served.path());
    let device = served.device();
    let vmm = attach(&mut guest);
    for (index, width) in [1000, 1001].into_iter().enumerate() {
        let mut monitor = MONITOR;
        monitor.width = width;
        device.set_monitor(0, monitor);
        eventually("a notification of each", || {
            vmm.lock().unwrap().0 == vec![Asked::ConfigChange; index + 1]
        });
    }
    let answer = guest.ask(&display_info());
    assert_eq!(answer.word(32), 1001);
}

/// QEMU crashes if it is notified while no driver runs.
#[test]
fn a_monitor_that_changes_while_no_driver_runs_is_told_when_one_does() {
    let served = Served::new(Parts::default());
    let stream = UnixStream::connect(served.path()).unwrap();
    let mut guest = Machine::negotiate(stream, 1 << 32);
    let device = served.device();
    let vmm = attach(&mut guest);
    let change = |width| {
        let mut monitor = MONITOR;
        monitor.width = width;
        device.set_monitor(0, monitor);
    };
    // The answer comes after everything that Hesper has sent.
    let told = |guest: &mut Machine| {
        guest.frontend.get_features().unwrap();
        thread::sleep(Duration::from_millis(20));
        vmm.lock().unwrap().0.len()
    };
    change(1000);
    change(1001);
    assert_eq!(told(&mut guest), 0, "the driver is not there yet");
    guest.start();
    eventually("one notification", || vmm.lock().unwrap().0.len() == 1);
    guest.stop();
    change(1002);
    assert_eq!(told(&mut guest), 1, "the driver has gone");
    guest.start();
    eventually("another one", || vmm.lock().unwrap().0.len() == 2);
    change(1003);
    eventually("one at once", || vmm.lock().unwrap().0.len() == 3);
    assert_eq!(told(&mut guest), 3);
    let answer = guest.ask(&display_info());
    assert_eq!(answer.word(32), 1003);
}

/// A renderer whose blobs are files filled with one byte.
#[derive(Default)]
pub(crate) struct Files {
    /// It is of no use to a guest without a window.
    pub(crate) needs_window: bool,
}

impl Renderer for Files {
    fn capsets(&self) -> &[CapsetInfo] {
        &[CapsetInfo {
            id: 4,
            max_version: 0,
            max_size: 4,
        }]
    }

    fn needs_window(&self) -> bool {
        self.needs_window
    }

    fn capset(&self, _: u32, _: u32) -> Option<Vec<u8>> {
        Some(vec![0; 4])
    }

    fn create_context(
        &self,
        id: ContextId,
        _: &NewContext<'_>,
        completions: Arc<dyn Completions>,
    ) -> Result<Arc<dyn Context>, RendererError> {
        Ok(Arc::new(FileContext { id, completions }))
    }
}

struct FileContext {
    id: ContextId,
    completions: Arc<dyn Completions>,
}

impl Context for FileContext {
    fn submit(&self, _: Vec<u8>, _: Charge) {}

    fn fence(&self, ring: u8, fence: u64) {
        self.completions.fence_retired(self.id, ring, fence);
    }

    fn create_blob(&self, resource: ResourceId, request: BlobRequest) {
        let fd: OwnedFd = memfd_create("blob", MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(request.size).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0x5a], 0).unwrap();
        let blob = Blob {
            fd: Some(Arc::new(file.into())),
            fd_offset: 0,
            size: request.size,
            caching: MapCaching::Cached,
            pixels: None,
            guest: None,
            origin: None,
        };
        self.completions.blob_created(self.id, resource, Ok(blob));
    }

    fn attach_resource(&self, _: ResourceId, _: &Blob) {}

    fn detach_resource(&self, _: ResourceId) {}
}

#[test]
fn a_blob_is_mapped_into_the_window_and_taken_out_again() {
    let served = Served::new(Parts {
        renderers: vec![Arc::new(Files::default())],
        window: 1 << 24,
        ..Parts::default()
    });
    let mut guest = Machine::boot(&served.path());
    let vmm = attach(&mut guest);
    assert_eq!(guest.code(&create_context()), wire::RESP_OK_NODATA);
    assert_eq!(guest.code(&create_blob(1, 0x4000)), wire::RESP_OK_NODATA);
    let answer = guest.ask(&Request::map_blob(1, 0x10_0000));
    assert_eq!(answer.kind(), wire::RESP_OK_MAP_INFO);
    let mapped = Asked::Map {
        region: 1,
        offset: 0x10_0000,
        len: 0x4000,
        first: 0x5a,
    };
    assert_eq!(vmm.lock().unwrap().0, [mapped, Asked::Barrier]);
    assert_eq!(guest.code(&Request::unmap_blob(1)), wire::RESP_OK_NODATA);
    let unmapped = Asked::Unmap {
        offset: 0x10_0000,
        len: 0x4000,
    };
    assert_eq!(vmm.lock().unwrap().0.last(), Some(&unmapped));

    // Outside of the window, or not aligned: refused, without asking the VMM.
    let before = vmm.lock().unwrap().0.len();
    for offset in [1 << 24, (1 << 24) - 0x1000, 0x123] {
        assert_ne!(
            guest.code(&Request::map_blob(1, offset)),
            wire::RESP_OK_MAP_INFO
        );
    }
    assert_eq!(vmm.lock().unwrap().0.len(), before);
}
