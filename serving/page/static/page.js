"use strict";
const LOST_MS = 3000;
const $ = id => document.getElementById(id);
const csrf = document.querySelector("meta[name=csrf]").content;
const conversation = crypto.randomUUID();  // keeps the version of this tab's conversation

function element(name, className, text) {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text ?? "";
  return node;
}

// Every request that changes something carries the token: a page of another site does not know it.
const post = (path, body, headers = {}) => fetch(path, {
  method: "POST",
  headers: {"content-type": "application/json", "x-sluice-csrf": csrf, ...headers},
  body: JSON.stringify(body),
});

async function messageOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

// Live updates: regions of the page, rendered and escaped by the server.

const drawn = new Map();  // element -> its newest HTML

function listen() {
  const source = new EventSource("/admin/events");
  let lost = null;
  const isBack = () => {
    clearTimeout(lost);
    lost = null;
    connection("");
  };
  source.addEventListener("regions", event => {
    isBack();
    for (const [id, html] of Object.entries(JSON.parse(event.data))) replace($(id), html);
  });
  source.addEventListener("open", isBack);
  source.addEventListener("end", () => location.assign("/login"));
  source.addEventListener("error", () => {
    // The server ends each stream now and then; that alone is nothing to show.
    lost ??= setTimeout(() => connection("connection lost, trying again"), LOST_MS);
    // The browser tries again by itself unless the server refused, as it does once the key no longer opens it.
    if (source.readyState === EventSource.CLOSED) {
      clearTimeout(lost);
      connection("connection lost, trying again");
      setTimeout(rejoin, LOST_MS);
    }
  });
}

async function rejoin() {
  try {
    const answer = await fetch("/", {redirect: "manual"});
    if (answer.type === "opaqueredirect") return location.assign("/login");
  } catch { /* still away */ }
  listen();
}

function connection(text) {
  $("connection").textContent = text;
  $("connection").hidden = !text;
}

// A button that cannot be pressed any more takes no focus; without one, the keyboard would begin at the top again.
function focusOr(node) {
  (node && !node.disabled ? node : $("main")).focus();
}

function replace(node, html) {
  // A text that is as before is not put there anew: it would be read aloud again.
  if ((drawn.get(node) ?? node.innerHTML) === html) return;
  const focused = node.contains(document.activeElement) ? document.activeElement : null;
  const scrolled = [...node.querySelectorAll(".scroll")].map(each => [each.scrollLeft, each.scrollTop]);
  node.innerHTML = html;
  drawn.set(node, html);
  [...node.querySelectorAll(".scroll")].forEach((each, place) => {
    if (scrolled[place]) [each.scrollLeft, each.scrollTop] = scrolled[place];
  });
  if (focused?.id) focusOr($(focused.id));
  else if (focused?.matches(".scroll")) focusOr(node.querySelector(".scroll"));
}

// Buttons ask first.

let opener = null, action = null;

$("actions").addEventListener("click", event => {
  const button = event.target.closest("button");
  if (!button) return;
  const {path, version, title, text, choices} = button.dataset;
  action = {path, version};
  opener = button.id;
  $("dialog-title").textContent = title;
  $("dialog-text").textContent = text;
  $("dialog-choice").hidden = !choices;
  $("to").replaceChildren(...(choices ? choices.split(" ") : []).map(name => new Option("v" + name, name)));
  $("reason").value = $("dialog-error").textContent = "";
  $("do").textContent = button.textContent;
  $("do").className = button.className;
  $("do").disabled = false;
  $("dialog").showModal();
  (choices ? $("to") : $("reason")).focus();
});

$("cancel").addEventListener("click", () => $("dialog").close());
$("dialog").addEventListener("close", () => {
  action = null;
  focusOr($(opener));
});

$("confirm").addEventListener("submit", async event => {
  event.preventDefault();
  const asked = action, {path, version} = action, reason = $("reason").value.trim(), to = $("to").value;
  if (!reason) {
    $("dialog-error").textContent = "Give a reason: it is written into the history.";
    return $("reason").focus();
  }
  $("do").disabled = true;
  $("dialog-error").textContent = "";
  let error = "";
  try {
    const answer = await post(path, {version, reason, ...(to ? {to} : {})});
    if (!answer.ok) error = await messageOf(answer);
  } catch {
    error = "the server does not answer; see whether it was done before you try again";
  }
  if (action !== asked) return;
  $("do").disabled = false;
  if (error) $("dialog-error").textContent = error;
  else $("dialog").close();
});

$("logout").addEventListener("click", async () => {
  await post("/logout", {});
  location.assign("/login");
});

// Chat: live traffic like any other.

let turns = [];

async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
  }
}

async function say(text) {
  const talk = $("talk");
  if (!turns.length) talk.replaceChildren();
  turns.push({role: "user", content: text});
  const bubble = element("div", "turn model", "…");
  // The log is read aloud once the answer is complete, not token by token.
  talk.setAttribute("aria-busy", "true");
  talk.append(element("div", "turn user", text), bubble);
  talk.scrollTop = talk.scrollHeight;
  let said = "";
  try {
    const body = {messages: turns, stream: true, temperature: .7};
    const answer = await post("/v1/chat/completions", body, {"x-sluice-session": conversation});
    if (!answer.ok) throw new Error(await messageOf(answer));
    for await (const chunk of chunks(answer.body)) {
      if (chunk.error) throw new Error(chunk.error.message);
      said += chunk.choices[0]?.delta.content ?? "";
      bubble.textContent = said || "…";
      talk.scrollTop = talk.scrollHeight;
    }
    turns.push({role: "assistant", content: said});
    bubble.textContent = said || "(nothing)";
    bubble.append(element("small", "", `v${answer.headers.get("x-sluice-version")}, ${answer.headers.get("x-sluice-arm")}`));
  } catch (error) {
    // A turn that failed is not part of the conversation: the next question starts afresh.
    turns = [];
    bubble.textContent = said;
    bubble.append(element("small", "error", error.message + " (the conversation starts anew)"));
  }
  talk.setAttribute("aria-busy", "false");
  talk.scrollTop = talk.scrollHeight;
}

$("chat").addEventListener("submit", async event => {
  event.preventDefault();
  const text = $("say").value.trim();
  if (!text || $("send").disabled) return;
  $("say").value = "";
  $("send").disabled = true;
  await say(text);
  $("send").disabled = false;
  $("say").focus();
});

listen();
