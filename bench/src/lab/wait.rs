//! The wait argument that the kernel has mapped (`IORING_ENTER_EXT_ARG_REG`, Linux 6.13), for which the `io-uring` crate has no
//! words yet.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::IoUring;

/// `IORING_REGISTER_MEM_REGION`.
const REGISTER_MEM_REGION: libc::c_uint = 34;

/// `struct io_uring_reg_wait`.
#[repr(C)]
#[derive(Default)]
pub(super) struct RegisteredWait {
    seconds: i64,
    nanoseconds: i64,
    min_wait_usec: u32,
    flags: u32,
    sigmask: u64,
    sigmask_size: u32,
    pad: [u32; 3],
    pad2: [u64; 2],
}

const _: () = assert!(size_of::<RegisteredWait>() == 64);

/// A page that the kernel has mapped, with the one wait argument at its begin.
#[repr(C, align(4096))]
pub(super) struct WaitArgument {
    wait: RegisteredWait,
    rest: [u8; 4096 - 64],
}

/// `struct io_uring_region_desc`.
#[repr(C)]
#[derive(Default)]
struct RegionDescription {
    user_address: u64,
    size: u64,
    flags: u32,
    id: u32,
    mmap_offset: u64,
    reserved: [u64; 4],
}

/// `struct io_uring_mem_region_reg`.
#[repr(C)]
#[derive(Default)]
struct RegionRegistration {
    region: u64,
    flags: u64,
    reserved: [u64; 2],
}

impl WaitArgument {
    /// Maps the argument, with a timeout of `seconds`, into a ring that is not enabled yet.
    pub(super) fn register(uring: &IoUring, seconds: u64) -> io::Result<Box<Self>> {
        let argument = Box::new(Self {
            wait: RegisteredWait {
                seconds: seconds as i64,
                // IORING_REG_WAIT_TS: the time is given.
                flags: 1,
                ..RegisteredWait::default()
            },
            rest: [0; 4096 - 64],
        });
        debug_assert_eq!(argument.rest[0], 0);
        let region = RegionDescription {
            user_address: (&raw const *argument) as u64,
            size: 4096,
            // IORING_MEM_REGION_TYPE_USER
            flags: 1,
            ..RegionDescription::default()
        };
        let registration = RegionRegistration {
            region: (&raw const region) as u64,
            // IORING_MEM_REGION_REG_WAIT_ARG
            flags: 1,
            ..RegionRegistration::default()
        };
        // SAFETY: both structs live through the call; the page lives as long as the ring, with `Lab`.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                uring.as_raw_fd(),
                REGISTER_MEM_REGION,
                &raw const registration,
                1 as libc::c_uint,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(argument)
    }
}
