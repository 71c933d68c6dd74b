//! Capture: from a camera or file to model-sized RGB frames with their media time.
//!
//! ```text
//! source ─▶ decoder ─▶ [probe: is the frame wanted?] ─▶ scaler, converter ─▶ appsink ─▶ one copy into the pool ─▶ consumer
//! ```
//!
//! All of that runs on one GStreamer streaming thread a camera; the thread `cam-<name>` owns the pipeline, watches for
//! error, end and silence, rebuilds it, and gives up a pipeline that does not stop within its deadline. Only this crate
//! names GStreamer and V4L2. It never shows a password, never logs per frame, and never allocates per frame.

mod argus;
mod ask;
mod backoff;
mod camera;
mod clock;
mod delivery;
mod describe;
#[cfg(feature = "v4l")]
mod devices;
mod diagnose;
mod elements;
mod error;
mod hardware;
mod init;
mod inventory;
mod pipeline;
pub mod platform;
#[cfg(feature = "v4l")]
mod rates;
mod run;
mod secret;
mod source;
mod stats;
mod still;
mod stop;
mod teardown;
mod unplugged;

pub use ask::{Offered, ask_rtsp};
pub use backoff::BackoffOptions;
pub use camera::{
    Branch, Camera, CameraControl, CameraOptions, Captured, GapReason, StopOutcome, can_freeze, check_file,
    frozen_timeout,
};
pub use clock::{KernelClock, boot_ns, kernel_clock, mono_ns, wall_ns};
pub use describe::{Codec, Description, Layout, Transport, describe};
#[cfg(feature = "v4l")]
pub use devices::{Device, DeviceError, DeviceFormat, DeviceSize, check_device, devices};
pub use elements::{Decoders, Elements, Machine};
pub use error::{CaptureError, DescribeError, Disposition, InitError};
pub use hardware::Hardware;
pub use init::init;
pub use inventory::{Needed, gstreamer_version, has_element, needed, package_of};
pub use platform::Platform;
#[cfg(feature = "v4l")]
pub use rates::{Rate, Rates};
pub use secret::{Credentials, redact, redact_address};
pub use source::{Mode, Source, SourceError, Speed, V4l2Format};
pub use stats::{CameraState, CameraStats};
