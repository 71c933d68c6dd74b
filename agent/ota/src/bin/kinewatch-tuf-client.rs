//! The TUF client of kinewatch on its own, with the command line of the TUF project's conformance suite. Not installed.
//!
//! Exit status 0 if all of a command succeeded, else 1. Reads the system's clock and takes it to be right.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jiff::Timestamp;
use kinewatch_ota::tuf::{Anchor, Client, Clock, Floors, Limits, Mirror, Options, Pace, Tls};
use url::Url;

#[derive(Parser)]
#[command(version, about = "The TUF client of kinewatch, for conformance tests")]
struct Arguments {
    /// Trusted metadata: root.json, timestamp.json, …
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    /// Where the repository's metadata lies
    #[arg(long, value_name = "URL")]
    metadata_url: Option<Url>,
    /// An artifact to download; several are fetched in this order, up to the first that cannot be had
    #[arg(long, value_name = "PATH")]
    target_name: Vec<String>,
    /// Where the repository's artifacts lie
    #[arg(long, value_name = "URL")]
    target_base_url: Option<Url>,
    /// Where to put the artifact
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trust a root; makes no request
    Init {
        /// A root.json
        root: PathBuf,
    },
    /// Bring the metadata up to date
    Refresh,
    /// Bring the metadata up to date and fetch artifacts
    Download,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => {
            let _ = told.print();
            return if told.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("kinewatch-tuf-client: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if let Command::Init { root } = &arguments.command {
        std::fs::create_dir_all(&arguments.metadata_dir)?;
        std::fs::copy(root, arguments.metadata_dir.join("root.json"))?;
        return Ok(());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(update(arguments))
}

async fn update(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let metadata = arguments.metadata_url.ok_or("--metadata-url is missing")?;
    // Beside the artifacts nothing may lie but artifacts.
    let parts = arguments.metadata_dir.join("parts");
    let mut client = Client::open(Options {
        mirrors: vec![Mirror { targets: arguments.target_base_url.unwrap_or_else(|| metadata.clone()), metadata }],
        anchor: Anchor::Stored,
        directory: arguments.metadata_dir,
        parts,
        limits: Limits::default(),
        pace: Pace::default(),
        tls: Tls::default(),
        proxy: None,
    })?;
    client.refresh(Clock::Synchronised(Timestamp::now()), &Floors::default()).await?;
    if matches!(arguments.command, Command::Download) {
        let directory = arguments.target_dir.ok_or("--target-dir is missing")?;
        if arguments.target_name.is_empty() {
            return Err("--target-name is missing".into());
        }
        for name in &arguments.target_name {
            let target = client.find(name).await?;
            std::fs::create_dir_all(&directory)?;
            client.fetch(&target, &target.file_in(&directory), &mut |_| {}).await?;
        }
    }
    Ok(())
}
