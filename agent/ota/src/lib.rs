//! Model packages, on disk and on their way: verified, packed, published, fetched.
//!
//! [`open_verified`] is the one door through which a package directory enters the agent. It proves that the directory
//! holds exactly what its `model.toml` says, so that the engine may trust names, labels and files. It does not prove
//! *who* made it: `model.toml` is only as trustworthy as the way it came. Over the air that is [`tuf`], which delivers what
//! [`publish`] has signed; a package travels as one file, a [`bundle`].
//!
//! Rules: read at most what the limits allow, follow no link inside the package, leave nothing half-read. Packages, bundles and
//! the publisher's side block, without threads and without a clock. Between verification and use the directory must not be
//! writable for others: it is opened again by path.

pub mod bundle;
pub mod depot;
mod durable;
mod package;
pub mod publish;
mod read;
pub mod tuf;

pub use package::{PackageError, VerifiedPackage, open_decoding, open_verified, open_verified_within};
pub use read::Limits;
