//! The `vhost` crate's requests, passed on to the [`Connection`].

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Backend, Error as VhostError, GpuBackend, Result as VhostResult, VhostUserBackendReqHandlerMut,
};

use super::super::super::connection::{Connection, QUEUES, Region, RequestError};

/// The id of the host-visible window among the shared memory regions is 1, so the list of sizes has two.
const WINDOW_REGIONS: u32 = 1;

/// Answers the requests of one connection.
pub(super) struct Requests {
    connection: Connection,
    /// The socket that the request being handled carries, see `peek`.
    peeked: Option<UnixStream>,
}

impl Requests {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            peeked: None,
        }
    }

    /// Says which socket the next request carries, if any.
    pub(super) fn expect_channel(&mut self, socket: Option<UnixStream>) {
        self.peeked = socket;
    }

    fn take_channel(&mut self) -> VhostResult<UnixStream> {
        self.peeked.take().ok_or(VhostError::IncorrectFds)
    }
}

/// A failed request ends the connection; its text is what the log says.
fn refused(error: RequestError) -> VhostError {
    VhostError::ReqHandlerError(io::Error::other(error))
}

/// For requests that belong to features that are not offered. The crate refuses them before.
fn not_offered<T>() -> VhostResult<T> {
    Err(VhostError::InvalidOperation("feature not offered"))
}

impl VhostUserBackendReqHandlerMut for Requests {
    fn set_owner(&mut self) -> VhostResult<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> VhostResult<()> {
        // Obsolete; the specification suggests to disable all rings.
        for index in [0, 1] {
            self.set_vring_enable(index, false)?;
        }
        Ok(())
    }

    fn reset_device(&mut self) -> VhostResult<()> {
        self.connection.reset_device();
        Ok(())
    }

    fn get_features(&mut self) -> VhostResult<u64> {
        Ok(self.connection.features())
    }

    fn set_features(&mut self, features: u64) -> VhostResult<()> {
        self.connection.accept_features(features).map_err(refused)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> VhostResult<Option<Vec<VhostUserMemoryRegionBase>>> {
        let regions = regions
            .iter()
            .zip(files)
            .map(|(region, file)| Region {
                guest: region.guest_phys_addr,
                size: region.memory_size,
                vmm: region.user_addr,
                offset: region.mmap_offset,
                file,
            })
            .collect();
        self.connection.set_memory(regions).map_err(refused)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> VhostResult<()> {
        self.connection.set_queue_size(index, num).map_err(refused)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> VhostResult<()> {
        self.connection
            .set_queue_addresses(index, [descriptor, available, used])
            .map_err(refused)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> VhostResult<()> {
        self.connection.set_queue_base(index, base).map_err(refused)
    }

    fn get_vring_base(&mut self, index: u32) -> VhostResult<VhostUserVringState> {
        let base = self.connection.stop_queue(index).map_err(refused)?;
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        self.connection
            .set_queue_kick(index.into(), fd)
            .map_err(refused)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        self.connection
            .set_queue_call(index.into(), fd)
            .map_err(refused)
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        self.connection
            .set_queue_error(index.into(), fd)
            .map_err(refused)
    }

    fn get_protocol_features(&mut self) -> VhostResult<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::from_bits_truncate(
            self.connection.protocol_features(),
        ))
    }

    fn set_protocol_features(&mut self, features: u64) -> VhostResult<()> {
        self.connection
            .accept_protocol_features(features)
            .map_err(refused)
    }

    fn get_queue_num(&mut self) -> VhostResult<u64> {
        Ok(QUEUES)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> VhostResult<()> {
        self.connection.enable_queue(index, enable).map_err(refused)
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> VhostResult<Vec<u8>> {
        // The crate bounds the size by that of a message, 4 KiB.
        let mut bytes = vec![0; size as usize];
        self.connection.read_config(offset, &mut bytes);
        Ok(bytes)
    }

    fn set_config(
        &mut self,
        offset: u32,
        buf: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> VhostResult<()> {
        self.connection.write_config(offset, buf);
        Ok(())
    }

    fn set_backend_req_fd(&mut self, backend: Backend) {
        // The crate's proxy for this socket is not used, see `peek`.
        drop(backend);
        let result = self
            .take_channel()
            .and_then(|socket| self.connection.set_backend_channel(socket).map_err(refused));
        if let Err(error) = result {
            log::error!("no backend channel, so no host blobs and no config changes: {error}");
        }
    }

    fn set_gpu_socket(&mut self, gpu_backend: GpuBackend) -> VhostResult<()> {
        drop(gpu_backend);
        let socket = self.take_channel()?;
        self.connection.set_gpu_socket(socket).map_err(refused)
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> VhostResult<File> {
        Err(VhostError::InvalidOperation("no such shared object"))
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> VhostResult<(VhostUserInflight, File)> {
        not_offered()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> VhostResult<()> {
        not_offered()
    }

    fn get_max_mem_slots(&mut self) -> VhostResult<u64> {
        not_offered()
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _fd: File,
        _postcopy_listening: Option<bool>,
    ) -> VhostResult<Option<VhostUserMemoryRegionBase>> {
        not_offered()
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> VhostResult<()> {
        not_offered()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> VhostResult<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> VhostResult<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> VhostResult<VhostUserShMemConfig> {
        Ok(match self.connection.window() {
            0 => VhostUserShMemConfig::new(0, &[]),
            size => VhostUserShMemConfig::new(WINDOW_REGIONS, &[0, size]),
        })
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> VhostResult<()> {
        not_offered()
    }
}
