//! `kinewatch version`.

use serde_json::json;

use super::{Outcome, VersionArgs, print};

/// Commit that the binary was built from; empty unless the build was told `KINEWATCH_COMMIT`.
pub(crate) const fn commit() -> &'static str {
    match option_env!("KINEWATCH_COMMIT") {
        Some(commit) => commit,
        None => "",
    }
}

pub(super) fn run(args: &VersionArgs) -> Outcome {
    let features: Vec<&str> = [("v4l", cfg!(feature = "v4l")), ("embedded-broker", cfg!(feature = "embedded-broker"))]
        .into_iter()
        .filter(|f| f.1)
        .map(|f| f.0)
        .collect();
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    if args.json {
        let value = json!({
            "version": env!("CARGO_PKG_VERSION"), "commit": commit(), "target": target, "features": features,
            "model_format": 1, "topics": "kinewatch/v1",
        });
        return print(&value.to_string());
    }
    let commit = if commit().is_empty() { String::new() } else { format!(" ({})", commit()) };
    print(&format!(
        "kinewatch {}{commit}\ntarget     {target}\nfeatures   {}",
        env!("CARGO_PKG_VERSION"),
        features.join(", "),
    ))
}
