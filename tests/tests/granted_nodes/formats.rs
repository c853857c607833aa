//! A fleet that is rolled to a program with one format of rows more, under load.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shortener_node::store::format::Format;
use shortener_node::store::keyspace;
use shortener_node::store::links::link_key;
use shortener_tests::client::{Answer, Client};
use shortener_tests::fleet::Fleet;
use shortener_tests::fleet::history::History;
use shortener_tests::fleet::load::Load;
use shortener_tests::programs::{next_node_program, node_program};
use shortener_tests::server_process::wait_until;
use shortener_tests::tikv::Tikv;
use shortener_tests::tikv_engine::Engine;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{GRANTS_GO_ON_WITHIN, Scene};

const NODES: usize = 3;
/// The pause between two changes: it is to show faults, not to wear out two cores.
const PAUSE: Duration = Duration::from_millis(20);
const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "a long enough passphrase";

/// A client that changes a link, lists its links and signs in anew, at every node in turn. Each answer must be 200.
struct Editor {
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
    /// The code of the link that it changes.
    code: String,
}

impl Editor {
    async fn start(fleet: &Arc<Fleet>, history: &Arc<History>) -> Result<Self> {
        let signed_in = fleet.client(0).await.register_and_login(EMAIL, PASSWORD).await?;
        let token = signed_in.token().context("a token")?.to_owned();
        let link = signed_in.create("https://www.example.com/edited").await?;
        let text = |name: &str| link[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {link}"));
        let (code, path) = (text("short_code")?, format!("/api/v1/urls/{}", text("id")?));
        let stop = CancellationToken::new();
        let task = tokio::spawn(edit(fleet.clone(), history.clone(), stop.clone(), token, path));
        Ok(Self { stop, task, code })
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.task.await.context("the editor ended badly")?
    }
}

async fn edit(
    fleet: Arc<Fleet>,
    history: Arc<History>,
    stop: CancellationToken,
    token: String,
    path: String,
) -> Result<()> {
    let mut turn = 0;
    while !stop.is_cancelled() {
        turn += 1;
        let client = fleet.client(turn).await.with_token(&token);
        let title = json!({ "title": format!("title {turn}") });
        for (what, answer) in [
            ("change", client.patch(&path, &title).await),
            ("list", client.get("/api/v1/urls").await),
            ("sign-in", sign_in(&client).await),
        ] {
            // A node that has just stopped answers nothing; a load balancer asks another one.
            let Ok(answer) = answer else { continue };
            history.answered(&format!("{what} {}", answer.status), Duration::ZERO);
            if answer.status != 200 {
                history.wrong(format!("a {what} was answered with {}: {}", answer.status, answer.text()));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Signs in, and refreshes the tokens. Returns the last answer.
async fn sign_in(client: &Client) -> Result<Answer> {
    let login = json!({ "email": EMAIL, "password": PASSWORD });
    let answer = client.post("/api/v1/auth/login", &login).await?;
    if answer.status != 200 {
        return Ok(answer);
    }
    let tokens: Value = answer.json()?;
    client.post("/api/v1/auth/refresh", &json!({ "refresh_token": tokens["refresh_token"] })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_rolls_to_the_next_format_under_load_and_can_go_back_until_the_format_is_raised() -> Result<()> {
    let Some((scene, operators)) = Scene::start("formats", NODES, 1).await? else { return Ok(()) };
    let tikv = Tikv::shared().await?.context("it was there a moment ago")?;
    let engine = Engine::open(tikv.pd_endpoints(), &scene.keyspace).await?;
    let format = async || keyspace::format(&engine.kv).await.context("reading the format");
    let mut load = Load::start(&scene.fleet, &scene.history, 4, 4);
    let editor = Editor::start(&scene.fleet, &scene.history).await?;
    let (this, next) = (node_program()?, next_node_program()?);

    // Rolled out to all nodes but one, and back on one of them: the older program reads all that was written.
    for (node, program) in [(1, &next), (2, &next), (1, &this)] {
        scene.fleet.roll(node, program.clone()).await?;
        scene.until_all_create().await?;
        assert_eq!(format().await?, Some(Format::NEWEST), "an older node runs");
    }
    // Rolled out to all nodes: the operator has the format raised.
    for node in 0..2 {
        scene.fleet.roll(node, next.clone()).await?;
        scene.until_all_create().await?;
    }
    wait_until("the format is raised", GRANTS_GO_ON_WITHIN, async || Ok(format().await? == Some(Format::NEXT))).await?;
    let (changed, each_node_again) = (scene.history.count("change 200"), 3 * u64::try_from(NODES)?);
    wait_until("links are changed", GRANTS_GO_ON_WITHIN, async || {
        Ok(scene.history.count("change 200") > changed + each_node_again)
    })
    .await?;
    load.stop().await?;
    let code = editor.code.clone();
    editor.stop().await?;
    let row = engine.kv.get(&link_key("", &code)).await?;
    ensure!(row.is_some_and(|row| row.first() == Some(&2)), "the link was not rewritten in its next version");
    for failed in ["create 5", "create again 5", "redirect 5"] {
        ensure!(scene.history.count(failed) == 0, "{}", scene.history.summary());
    }

    // Now there is no way back.
    let log = scene.fleet.expect_refusal(0, this).await?;
    ensure!(log.contains("the keyspace is in format 3, and this program knows formats up to 2"), "{log}");
    scene.fleet.start_as(0, next).await?;
    for operator in operators {
        operator.stop().await?;
    }
    scene.check(false).await
}
