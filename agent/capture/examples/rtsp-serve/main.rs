//! Serves video files over RTSP on loopback, each from its beginning for every client: cameras for demo and tests.
//!
//! `rtsp-serve [--port N] [--user NAME --password WORD] [--loop] NAME=FILE…`; prints one URL a line when it is ready, takes
//! orders on its standard input ([`orders`]), and runs until SIGTERM or SIGINT ends it (the system's default: there is
//! nothing to put away).

mod clip;
mod orders;
mod player;
mod server;
mod wire;

use std::process::ExitCode;

use gstreamer::glib;

const USAGE: &str = "usage: rtsp-serve [--port N] [--user NAME --password WORD] [--loop] NAME=FILE...";

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("rtsp-serve: {reason}\n{USAGE}\norders on standard input:\n{}", orders::ORDERS);
            return ExitCode::from(2);
        }
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("rtsp-serve: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &server::Options) -> Result<(), String> {
    gstreamer::init().map_err(|e| e.to_string())?;
    let main_loop = glib::MainLoop::new(None, false);
    let server = server::Server::start(options)?;
    for url in server.urls() {
        println!("{url}");
    }
    std::thread::spawn(move || {
        orders::run(&server, std::io::stdin().lock());
        // Without orders it goes on as it is.
        std::thread::park();
    });
    main_loop.run();
    Ok(())
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<server::Options, String> {
    let mut options = server::Options::default();
    let (mut user, mut password) = (None, None);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--port" => options.port = value()?.parse().map_err(|_| "--port needs a number".to_owned())?,
            "--user" => user = Some(value()?),
            "--password" => password = Some(value()?),
            "--loop" => options.looped = true,
            mount => options.mounts.push(orders::mount(mount)?),
        }
    }
    options.credentials = match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        _ => return Err("--user and --password go together".into()),
    };
    if options.mounts.is_empty() {
        return Err("nothing to serve".into());
    }
    Ok(options)
}
