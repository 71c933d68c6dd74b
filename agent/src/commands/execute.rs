//! What each command does. Within [`LIMIT`]; whatever takes longer goes on, and the answer says that it does.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use kinewatch_core::command::{Command, CommandError, ErrorCode};
use kinewatch_core::topic::Audience;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Parts;
use crate::reload::{Request, Verdict};
use crate::supervise::{self, RequestError};
use crate::{delivery, updates, web};

/// How long a command may take before it is answered that it takes longer. Others wait for it.
const LIMIT: Duration = Duration::from_secs(5);

type Outcome = Result<Value, CommandError>;

impl Parts {
    pub(crate) async fn execute(&self, audience: Audience, command: Command) -> Outcome {
        if audience == Audience::All && !command.name().suits_all() {
            let message = "this command is about one device: send it to that device's own topic";
            return Err(CommandError::new(ErrorCode::NotForAll, message));
        }
        if self.shared.stopping.load(Relaxed) {
            return Err(CommandError::new(ErrorCode::Unavailable, "the agent is stopping"));
        }
        match tokio::time::timeout(LIMIT, self.done(command)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let message = format!("no end within {} s; it may still come", LIMIT.as_secs());
                Err(CommandError::new(ErrorCode::Timeout, message))
            }
        }
    }

    async fn done(&self, command: Command) -> Outcome {
        match command {
            Command::Ping => Ok(json!({
                "version": env!("CARGO_PKG_VERSION"),
                "session": self.session,
                "uptime_s": self.shared.started.elapsed().as_secs(),
            })),
            Command::Status => Ok(web::status_json(&self.shared)),
            Command::Ack { upto } => self.ask_store(|reply| delivery::Command::Consumed { up_to: upto, reply }).await,
            Command::Resend { from } => {
                tracing::info!(from, "command: publish again");
                self.ask_store(|reply| delivery::Command::Resend { from, reply }).await
            }
            Command::CameraRestart { camera } => self.restart(&camera),
            Command::Reload => self.reload().await,
            Command::ModelCheck => self.ask_updates(updates::Request::Check).await,
            Command::ModelInstall { model } => self.ask_updates(|to| updates::Request::Install(model, to)).await,
            Command::ModelRollback { model } => self.ask_updates(|to| updates::Request::Rollback(model, to)).await,
            Command::ModelPin { model } => self.ask_updates(|to| updates::Request::Pin(model, to)).await,
            Command::ModelUnpin { model } => self.ask_updates(|to| updates::Request::Unpin(model, to)).await,
        }
    }

    async fn ask_store<T: Serialize>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, String>>) -> delivery::Command,
    ) -> Outcome {
        let ended = || CommandError::new(ErrorCode::Unavailable, "the store has ended");
        let (reply, answer) = oneshot::channel();
        self.delivery.send(command(reply)).await.map_err(|_| ended())?;
        let result = answer.await.map_err(|_| ended())?;
        let result = result.map_err(|message| CommandError::new(ErrorCode::Unavailable, message))?;
        Ok(serde_json::to_value(result).unwrap_or_default())
    }

    async fn ask_updates(&self, request: impl FnOnce(updates::Answer) -> updates::Request) -> Outcome {
        let ended = || CommandError::new(ErrorCode::Unavailable, "updates are not served; see the log");
        let (reply, answer) = oneshot::channel();
        self.updates.send(request(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    fn restart(&self, camera: &str) -> Outcome {
        tracing::info!(camera, "command: build its stream anew");
        let refused = |error: RequestError| {
            let code = match error {
                RequestError::UnknownCamera(_) => ErrorCode::UnknownCamera,
                RequestError::Busy => ErrorCode::Unavailable,
            };
            CommandError::new(code, error.to_string())
        };
        let request = supervise::Request::RestartCamera(camera.to_owned());
        self.cameras.send(request).map(|()| json!({"camera": camera})).map_err(refused)
    }

    async fn reload(&self) -> Outcome {
        tracing::info!("command: read the configuration again");
        let stopping = |_| CommandError::new(ErrorCode::Unavailable, "the agent is stopping");
        let (reply, answer) = oneshot::channel();
        self.reload.send(Request::Read(Some(reply))).await.map_err(|_| stopping(()))?;
        let outcome = answer.await.map_err(|_| stopping(()))?;
        match outcome.result {
            Verdict::Applied => Ok(serde_json::to_value(&*outcome).unwrap_or_default()),
            Verdict::Refused => Err(CommandError::new(ErrorCode::Failed, outcome.problems.join("; "))),
        }
    }
}
