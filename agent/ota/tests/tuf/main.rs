//! The TUF client against repositories made by hand and a web server that misbehaves on demand.

#![allow(clippy::unwrap_used)]

mod attacks;
mod lab;
mod mutations;
mod network;
mod published;
mod repository;
mod server;
mod state;
