//! The agent: composes capture, engine, decoders, store and MQTT into the daemon and the commands. Holds no algorithm.
//!
//! Start reading at [`app`] (what runs) and [`analytics`] (what happens to a frame); `design/data-flow.md` has the walk.

pub mod analytics;
pub mod app;
pub mod broker;
pub mod calibrate;
pub mod camera_states;
pub mod cameras;
pub mod chains;
pub mod change;
pub mod cli;
pub mod clock;
pub mod clock_journal;
pub mod commands;
pub mod config;
pub mod control;
pub mod decode;
pub mod delivery;
pub mod doctor;
pub mod eval;
pub mod health;
pub mod infer;
pub mod inference;
pub mod intervals;
pub mod layout;
pub mod live;
pub mod logging;
pub mod mailbox;
pub mod metrics;
pub mod models;
pub mod npy;
pub mod overload;
pub mod picture;
pub mod prepare;
pub mod progress;
pub mod reload;
pub mod replay;
mod retained;
pub mod scores;
pub mod supervise;
pub mod systemd;
pub mod table;
pub mod tally;
pub mod timeline;
pub mod updates;
pub mod web;
pub mod worker;
