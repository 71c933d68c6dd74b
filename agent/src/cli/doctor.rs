//! `kinewatch doctor`.

use super::{DoctorArgs, Failure, Outcome, print};
use crate::doctor::report::Looks;
use crate::doctor::{self, Context, Network, Verdict};

pub(super) fn run(args: &DoctorArgs) -> Outcome {
    let network = if args.offline { Network::Offline } else { Network::Online };
    let report = doctor::run(Context::of_machine(&args.config, network));
    print(&if args.json { report.json().to_string() } else { report.text(Looks::of_stdout()) })?;
    if !report.is_usable() {
        return Err(Failure::Config(Vec::new()));
    }
    match report.count(Verdict::Fail) {
        0 => Ok(()),
        n => Err(Failure::say(format!("{n} of {} findings are failures", report.total()))),
    }
}
