package gateway

// kind is what a row does with a request.
type kind int

const (
	pass   kind = iota // on to OpenCode
	refuse             // 403 with the row's reason
	answer             // answered here
)

// row is one line of the allow-list.
type row struct {
	method  string
	pattern string // segments; {name} is one segment, {name...} the rest
	kind    kind
	reason  string

	redact  bool        // pass: remove keys from the JSON response
	events  bool        // pass: a stream of events
	hold    bool        // pass: hold the reply back until the session is idle
	upgrade bool        // pass or answer: a WebSocket may be opened
	body    bodyCheck   // pass: read, checked and written anew
	bare    bool        // pass: may come without a body, although one is checked
	reply   emptyAnswer // answer: what is said
	opens   bool        // pass: a client that asks this shows the session to somebody
	command bool        // pass: a slash command, whose template may run commands
	page    bool        // pass: only for a browser that navigates; OpenCode is asked for /
}

// Reasons that many rows share. A reason says what the client may do instead.
const (
	hostFiles    = "this would read the files of the machine that runs OpenCode, not the sandbox's; let the agent's tools read them"
	hostTerminal = "this would open a terminal on the machine that runs OpenCode, not in the sandbox"
	secondEngine = "this would drive OpenCode's second engine, whose tools are not in the sandbox; use /session"
	changeConfig = "this would change the configuration of the server, which is its operator's; set it where the server is started"
	credentials  = "this would store or fetch credentials in OpenCode; keys are set where the server is started, outside OpenCode"
	hostGit      = "this would make or move git work trees on the machine that runs OpenCode"
	serverLife   = "this would stop or replace the server, which is its operator's"
	syncing      = "this would read or rewrite sessions past their checks"
	remoteUI     = "this would drive another person's terminal client"
	outside      = "this would send the session to a service outside"
	undoFiles    = "OpenCode would mark the messages and leave the files of the sandbox as they are; undo does both"
	forkFiles    = "OpenCode would copy the conversation and leave the files of the sandbox out; a fork has both"
	reading      = "reads OpenCode's own database"
	settled      = "describes the server; nothing in it acts"
)

// table is the allow-list: every operation of OpenCode that somebody has decided
// about. What is not in it is refused. TestTableKnowsEveryOperation compares it with
// the operations of the pinned OpenCode, so that a new one is shut until it has a row.
var table = []row{
	// The page. OpenCode serves it for every path that is no route.
	{method: "GET", pattern: "/", kind: pass, reason: "the web page"},
	{method: "GET", pattern: "/assets/{file...}", kind: pass, reason: "scripts and styles of the web page"},
	{method: "GET", pattern: "/favicon-96x96-v3.png", kind: pass, reason: "the web page's icon"},
	{method: "GET", pattern: "/favicon-v3.svg", kind: pass, reason: "the web page's icon"},
	{method: "GET", pattern: "/favicon-v3.ico", kind: pass, reason: "the web page's icon"},
	{method: "GET", pattern: "/apple-touch-icon-v3.png", kind: pass, reason: "the web page's icon"},
	{method: "GET", pattern: "/site.webmanifest", kind: pass, reason: "the web page's manifest"},
	{method: "GET", pattern: "/web-app-manifest-192x192.png", kind: pass, reason: "the web page's icon"},
	{method: "GET", pattern: "/web-app-manifest-512x512.png", kind: pass, reason: "the web page's icon"},
	{method: "GET", pattern: "/social-share.png", kind: pass, reason: "the web page's picture"},
	{method: "GET", pattern: "/{page...}", kind: pass, page: true, reason: "addresses inside the web page, asked for by a browser that navigates; OpenCode sees a request for /"},

	// The server.
	{method: "GET", pattern: "/doc", kind: pass, reason: "the description of the API"},
	{method: "GET", pattern: "/global/health", kind: pass, reason: settled},
	{method: "GET", pattern: "/global/event", kind: pass, events: true, reason: "events; the terminal client needs it"},
	{method: "GET", pattern: "/event", kind: pass, events: true, reason: "events; `opencode run` needs it"},
	{method: "GET", pattern: "/global/config", kind: pass, redact: true, reason: "configuration, without keys"},
	{method: "PATCH", pattern: "/global/config", kind: refuse, reason: changeConfig},
	{method: "POST", pattern: "/global/dispose", kind: refuse, reason: serverLife},
	{method: "POST", pattern: "/global/upgrade", kind: refuse, reason: serverLife},
	{method: "POST", pattern: "/instance/dispose", kind: refuse, reason: serverLife},
	{method: "POST", pattern: "/log", kind: refuse, reason: "clients do not write into the server's log"},
	{method: "GET", pattern: "/config", kind: pass, redact: true, reason: "configuration, without keys"},
	{method: "PATCH", pattern: "/config", kind: refuse, reason: changeConfig},
	{method: "GET", pattern: "/config/providers", kind: pass, redact: true, reason: "models to choose from, without keys"},
	{method: "PUT", pattern: "/auth/{providerID}", kind: refuse, reason: credentials},
	{method: "DELETE", pattern: "/auth/{providerID}", kind: refuse, reason: credentials},
	{method: "GET", pattern: "/provider", kind: pass, redact: true, reason: "models to choose from, without keys"},
	{method: "GET", pattern: "/provider/auth", kind: pass, redact: true, reason: "names of ways to log in"},
	{method: "POST", pattern: "/provider/{providerID}/oauth/authorize", kind: refuse, reason: credentials},
	{method: "POST", pattern: "/provider/{providerID}/oauth/callback", kind: refuse, reason: credentials},
	{method: "GET", pattern: "/path", kind: pass, reason: settled},
	{method: "GET", pattern: "/agent", kind: pass, redact: true, reason: settled},
	{method: "GET", pattern: "/command", kind: pass, reason: settled},
	{method: "GET", pattern: "/skill", kind: pass, reason: settled},
	{method: "GET", pattern: "/lsp", kind: pass, reason: settled},
	{method: "GET", pattern: "/formatter", kind: pass, reason: settled},
	{method: "GET", pattern: "/mcp", kind: pass, redact: true, reason: settled},
	{method: "POST", pattern: "/mcp", kind: refuse, reason: changeConfig},
	{method: "POST", pattern: "/mcp/{name}/auth", kind: refuse, reason: credentials},
	{method: "DELETE", pattern: "/mcp/{name}/auth", kind: refuse, reason: credentials},
	{method: "POST", pattern: "/mcp/{name}/auth/callback", kind: refuse, reason: credentials},
	{method: "POST", pattern: "/mcp/{name}/auth/authenticate", kind: refuse, reason: credentials},
	{method: "POST", pattern: "/mcp/{name}/connect", kind: refuse, reason: changeConfig},
	{method: "POST", pattern: "/mcp/{name}/disconnect", kind: refuse, reason: changeConfig},
	{method: "GET", pattern: "/project", kind: pass, reason: reading},
	{method: "GET", pattern: "/project/current", kind: pass, reason: reading},
	{method: "GET", pattern: "/project/{projectID}/directories", kind: pass, reason: reading},
	{method: "PATCH", pattern: "/project/{projectID}", kind: pass, body: checkProject, reason: "the colour of a project's icon, which the web page sets; a start command would run on the machine that runs OpenCode"},
	{method: "POST", pattern: "/project/git/init", kind: refuse, reason: hostGit},

	// Sessions.
	{method: "GET", pattern: "/session", kind: pass, reason: reading},
	{method: "POST", pattern: "/session", kind: pass, body: checkSession, bare: true, reason: "a new session; permissions in it may not lift the server's"},
	{method: "GET", pattern: "/session/status", kind: pass, reason: reading},
	{method: "GET", pattern: "/session/{sessionID}", kind: pass, opens: true, reason: reading},
	{method: "PATCH", pattern: "/session/{sessionID}", kind: pass, body: checkSession, reason: "title and archive; permissions in it may not lift the server's"},
	{method: "DELETE", pattern: "/session/{sessionID}", kind: pass, reason: "ends a session"},
	{method: "GET", pattern: "/session/{sessionID}/children", kind: pass, reason: reading},
	{method: "GET", pattern: "/session/{sessionID}/todo", kind: pass, reason: reading},
	{method: "GET", pattern: "/session/{sessionID}/diff", kind: pass, reason: reading},
	{method: "GET", pattern: "/session/{sessionID}/message", kind: pass, opens: true, reason: reading},
	{method: "POST", pattern: "/session/{sessionID}/message", kind: pass, body: checkPrompt, hold: true, reason: "a prompt; its parts may not name files, pages or permissions"},
	{method: "POST", pattern: "/session/{sessionID}/prompt_async", kind: pass, body: checkPrompt, reason: "a prompt; its parts may not name files, pages or permissions"},
	{method: "POST", pattern: "/session/{sessionID}/command", kind: pass, body: checkCommand, hold: true, command: true, reason: "a slash command; its arguments may not name files or commands"},
	{method: "GET", pattern: "/session/{sessionID}/message/{messageID}", kind: pass, reason: reading},
	{method: "DELETE", pattern: "/session/{sessionID}/message/{messageID}", kind: pass, reason: "removes a message from the conversation"},
	{method: "DELETE", pattern: "/session/{sessionID}/message/{messageID}/part/{partID}", kind: pass, reason: "removes a part of a message from the conversation"},
	{method: "PATCH", pattern: "/session/{sessionID}/message/{messageID}/part/{partID}", kind: refuse, reason: "this would rewrite the history past the checks of a prompt"},
	{method: "POST", pattern: "/session/{sessionID}/abort", kind: pass, reason: "stops the turn"},
	{method: "POST", pattern: "/session/{sessionID}/init", kind: pass, hold: true, reason: "a prompt of OpenCode's own; it has no text of the client"},
	{method: "POST", pattern: "/session/{sessionID}/summarize", kind: pass, reason: "shortens the conversation; runs no tool"},
	{method: "POST", pattern: "/session/{sessionID}/fork", kind: refuse, reason: forkFiles},
	{method: "POST", pattern: "/session/{sessionID}/share", kind: refuse, reason: outside},
	{method: "DELETE", pattern: "/session/{sessionID}/share", kind: refuse, reason: outside},
	{method: "POST", pattern: "/session/{sessionID}/shell", kind: pass, body: checkShell, reason: "a command of the person's; OpenCode's shell leads into the session's sandbox, and refuses what has no session"},
	{method: "POST", pattern: "/session/{sessionID}/revert", kind: refuse, reason: undoFiles},
	{method: "POST", pattern: "/session/{sessionID}/unrevert", kind: refuse, reason: undoFiles},
	{method: "POST", pattern: "/session/{sessionID}/permissions/{permissionID}", kind: pass, reason: "the person's answer to a tool that asks"},
	{method: "GET", pattern: "/permission", kind: pass, reason: reading},
	{method: "POST", pattern: "/permission/{requestID}/reply", kind: pass, reason: "the person's answer to a tool that asks"},
	{method: "GET", pattern: "/question", kind: pass, reason: reading},
	{method: "POST", pattern: "/question/{requestID}/reply", kind: pass, reason: "the person's answer to a question"},
	{method: "POST", pattern: "/question/{requestID}/reject", kind: pass, reason: "the person's answer to a question"},

	// Files, search, git and terminals of a directory.
	{method: "GET", pattern: "/file", kind: refuse, reason: hostFiles},
	{method: "GET", pattern: "/file/content", kind: refuse, reason: hostFiles},
	{method: "GET", pattern: "/file/status", kind: answer, reply: emptyList, reason: "no changes are tracked; the web page asks at start"},
	{method: "GET", pattern: "/find", kind: refuse, reason: hostFiles},
	{method: "GET", pattern: "/find/file", kind: refuse, reason: hostFiles},
	{method: "GET", pattern: "/find/symbol", kind: answer, reply: emptyList, reason: "no language server runs, so there are no symbols"},
	{method: "GET", pattern: "/vcs", kind: answer, reply: emptyObject, reason: "no branch is known; the clients ask at start"},
	{method: "GET", pattern: "/vcs/status", kind: answer, reply: emptyList, reason: "no changes are tracked; the clients ask at start"},
	{method: "GET", pattern: "/vcs/diff", kind: answer, reply: emptyList, reason: "no changes are tracked; the web page asks at start"},
	{method: "GET", pattern: "/vcs/diff/raw", kind: refuse, reason: hostFiles},
	{method: "POST", pattern: "/vcs/apply", kind: refuse, reason: hostGit},
	{method: "GET", pattern: "/pty/shells", kind: answer, reply: emptyList, reason: "no terminal can be opened yet"},
	{method: "GET", pattern: "/pty", kind: answer, reply: emptyList, reason: "no terminal is open; the web page asks at start"},
	{method: "POST", pattern: "/pty", kind: refuse, reason: hostTerminal},
	{method: "GET", pattern: "/pty/{ptyID}", kind: refuse, reason: hostTerminal},
	{method: "PUT", pattern: "/pty/{ptyID}", kind: refuse, reason: hostTerminal},
	{method: "DELETE", pattern: "/pty/{ptyID}", kind: refuse, reason: hostTerminal},
	{method: "POST", pattern: "/pty/{ptyID}/connect-token", kind: refuse, reason: hostTerminal},
	{method: "GET", pattern: "/pty/{ptyID}/connect", kind: refuse, upgrade: true, reason: hostTerminal},

	// Another terminal client, sessions on other machines.
	{method: "POST", pattern: "/tui/append-prompt", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/open-help", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/open-sessions", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/open-themes", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/open-models", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/submit-prompt", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/clear-prompt", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/execute-command", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/show-toast", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/publish", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/select-session", kind: refuse, reason: remoteUI},
	{method: "GET", pattern: "/tui/control/next", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/tui/control/response", kind: refuse, reason: remoteUI},
	{method: "POST", pattern: "/sync/start", kind: refuse, reason: syncing},
	{method: "POST", pattern: "/sync/replay", kind: refuse, reason: syncing},
	{method: "POST", pattern: "/sync/steal", kind: refuse, reason: syncing},
	{method: "POST", pattern: "/sync/history", kind: refuse, reason: syncing},

	// Experiments.
	{method: "GET", pattern: "/experimental/capabilities", kind: pass, reason: settled},
	{method: "GET", pattern: "/experimental/console", kind: pass, redact: true, reason: settled},
	{method: "GET", pattern: "/experimental/console/orgs", kind: refuse, reason: outside},
	{method: "POST", pattern: "/experimental/console/switch", kind: refuse, reason: outside},
	{method: "GET", pattern: "/experimental/tool", kind: pass, reason: settled},
	{method: "GET", pattern: "/experimental/tool/ids", kind: pass, reason: settled},
	{method: "GET", pattern: "/experimental/resource", kind: pass, reason: settled},
	{method: "GET", pattern: "/experimental/session", kind: pass, reason: reading},
	{method: "POST", pattern: "/experimental/session/{sessionID}/background", kind: refuse, reason: "agents do not run in the background here"},
	{method: "GET", pattern: "/experimental/worktree", kind: answer, reply: emptyList, reason: "there are no work trees"},
	{method: "POST", pattern: "/experimental/worktree", kind: refuse, reason: hostGit},
	{method: "DELETE", pattern: "/experimental/worktree", kind: refuse, reason: hostGit},
	{method: "POST", pattern: "/experimental/worktree/reset", kind: refuse, reason: hostGit},
	{method: "POST", pattern: "/experimental/project/{projectID}/copy", kind: refuse, reason: hostGit},
	{method: "DELETE", pattern: "/experimental/project/{projectID}/copy", kind: refuse, reason: hostGit},
	{method: "POST", pattern: "/experimental/project/{projectID}/copy/refresh", kind: refuse, reason: hostGit},
	{method: "POST", pattern: "/experimental/project/{projectID}/copy/generate-name", kind: refuse, reason: hostGit},
	{method: "POST", pattern: "/experimental/control-plane/move-session", kind: refuse, reason: syncing},
	{method: "GET", pattern: "/experimental/workspace", kind: answer, reply: emptyList, reason: "there are no workspaces; the terminal client asks at start"},
	{method: "GET", pattern: "/experimental/workspace/status", kind: answer, reply: emptyList, reason: "there are no workspaces; the terminal client asks at start"},
	{method: "GET", pattern: "/experimental/workspace/adapter", kind: answer, reply: emptyList, reason: "there are no workspaces"},
	{method: "POST", pattern: "/experimental/workspace", kind: refuse, reason: hostGit},
	{method: "POST", pattern: "/experimental/workspace/sync-list", kind: refuse, reason: syncing},
	{method: "DELETE", pattern: "/experimental/workspace/{id}", kind: refuse, reason: hostGit},
	{method: "POST", pattern: "/experimental/workspace/warp", kind: refuse, reason: syncing},

	// The second engine. The terminal client asks it what there is.
	{method: "GET", pattern: "/api/health", kind: pass, reason: settled},
	{method: "GET", pattern: "/api/location", kind: pass, reason: settled},
	{method: "GET", pattern: "/api/agent", kind: pass, redact: true, reason: settled},
	{method: "GET", pattern: "/api/model", kind: pass, redact: true, reason: "models to choose from, without keys"},
	{method: "GET", pattern: "/api/provider", kind: pass, redact: true, reason: "models to choose from, without keys"},
	{method: "GET", pattern: "/api/provider/{providerID}", kind: pass, redact: true, reason: "models to choose from, without keys"},
	{method: "GET", pattern: "/api/integration", kind: pass, redact: true, reason: "names of ways to log in"},
	{method: "GET", pattern: "/api/integration/{integrationID}", kind: pass, redact: true, reason: "names of ways to log in"},
	{method: "GET", pattern: "/api/command", kind: pass, reason: settled},
	{method: "GET", pattern: "/api/skill", kind: pass, reason: settled},
	{method: "GET", pattern: "/api/reference", kind: pass, reason: settled},
	{method: "GET", pattern: "/api/fs/find", kind: answer, reply: emptyLocated, reason: "the sandbox's files cannot be completed yet; the terminal client asks when @ is typed"},
	{method: "GET", pattern: "/api/fs/list", kind: refuse, reason: hostFiles},
	{method: "GET", pattern: "/api/fs/read/{path...}", kind: refuse, reason: hostFiles},
	{method: "GET", pattern: "/api/event", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/session", kind: pass, reason: "the same list of sessions as GET /session; the web page's first view asks"},
	{method: "POST", pattern: "/api/session", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/session/active", kind: answer, reply: emptyData, reason: "the second engine runs no session"},
	{method: "GET", pattern: "/api/session/{sessionID}", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/agent", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/model", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/prompt", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/compact", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/wait", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/revert/stage", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/revert/clear", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/revert/commit", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/session/{sessionID}/context", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/session/{sessionID}/history", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/session/{sessionID}/event", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/interrupt", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/session/{sessionID}/message", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/session/{sessionID}/message/{messageID}", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/session/{sessionID}/permission", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/permission", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/session/{sessionID}/permission/{requestID}", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/permission/{requestID}/reply", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/session/{sessionID}/question", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/question/{requestID}/reply", kind: refuse, reason: secondEngine},
	{method: "POST", pattern: "/api/session/{sessionID}/question/{requestID}/reject", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/permission/request", kind: answer, reply: emptyLocated, reason: "the second engine runs no session"},
	{method: "GET", pattern: "/api/permission/saved", kind: answer, reply: emptyListData, reason: "the second engine runs no session"},
	{method: "DELETE", pattern: "/api/permission/saved/{id}", kind: refuse, reason: secondEngine},
	{method: "GET", pattern: "/api/question/request", kind: answer, reply: emptyLocated, reason: "the second engine runs no session"},
	{method: "POST", pattern: "/api/integration/{integrationID}/connect/key", kind: refuse, reason: credentials},
	{method: "POST", pattern: "/api/integration/{integrationID}/connect/oauth", kind: refuse, reason: credentials},
	{method: "GET", pattern: "/api/integration/attempt/{attemptID}", kind: refuse, reason: credentials},
	{method: "DELETE", pattern: "/api/integration/attempt/{attemptID}", kind: refuse, reason: credentials},
	{method: "POST", pattern: "/api/integration/attempt/{attemptID}/complete", kind: refuse, reason: credentials},
	{method: "PATCH", pattern: "/api/credential/{credentialID}", kind: refuse, reason: credentials},
	{method: "DELETE", pattern: "/api/credential/{credentialID}", kind: refuse, reason: credentials},
	{method: "GET", pattern: "/api/pty", kind: refuse, reason: hostTerminal},
	{method: "POST", pattern: "/api/pty", kind: refuse, reason: hostTerminal},
	{method: "GET", pattern: "/api/pty/{ptyID}", kind: refuse, reason: hostTerminal},
	{method: "PUT", pattern: "/api/pty/{ptyID}", kind: refuse, reason: hostTerminal},
	{method: "DELETE", pattern: "/api/pty/{ptyID}", kind: refuse, reason: hostTerminal},
	{method: "POST", pattern: "/api/pty/{ptyID}/connect-token", kind: refuse, reason: hostTerminal},
	{method: "GET", pattern: "/api/pty/{ptyID}/connect", kind: refuse, upgrade: true, reason: hostTerminal},
}
