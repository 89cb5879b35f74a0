//! What people see when the demo is ready: where things are, and what to try.
//!
//! Owns the text. Every command in it can be copied and pasted as it stands.

use std::fmt::Write;
use std::time::Duration;

use super::layout::Layout;

/// The welcome screen.
pub(crate) fn welcome(layout: &Layout, pids: &[Option<u32>], took: Duration) -> String {
    let skein = std::env::current_exe()
        .map_or_else(|_| "skein".to_owned(), |path| path.display().to_string());
    let endpoints = layout.endpoints().join(",");
    let dir = layout.dir.display();
    let web = layout.web(0);
    let mut text = format!(
        "\nA mesh of three nodes is ready after {:.1} s.\n\n",
        took.as_secs_f64()
    );
    let mut line = |args: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = text.write_fmt(args);
        text.push('\n');
    };
    line(format_args!(
        "  node  traffic                  admin                          store"
    ));
    for (at, node) in layout.nodes.iter().enumerate() {
        let traffic = format!("http://{}", layout.web(at));
        let admin = format!("http://{}", node.admin);
        line(format_args!(
            "  {:<5} {traffic:<24} {admin:<30} {}",
            node.name, node.client
        ));
    }
    line(format_args!("\nTry, in another terminal:\n"));
    line(format_args!("  export SKEIN_ENDPOINTS={endpoints}"));
    line(format_args!("  alias skein={skein}\n"));
    line(format_args!(
        "  curl {web}                 # an upstream names itself"
    ));
    line(format_args!("  skein status"));
    line(format_args!("  skein explain http://{web}/"));
    line(format_args!(
        "\n  # move most of the traffic to green, live, on all three nodes"
    ));
    line(format_args!(
        "  sed 's/blue: [0-9]*, green: [0-9]*/blue: 10, green: 90/' {} | skein apply -f - --wait",
        layout.config.display()
    ));
    line(format_args!(
        "\n  # kill a node, watch the others carry on, and bring it back"
    ));
    let pid = pids.first().copied().flatten().unwrap_or_default();
    line(format_args!("  kill -9 {pid}; sleep 5; skein status"));
    line(format_args!(
        "  skein node --config {}",
        layout.nodes[0].bootstrap.display()
    ));
    line(format_args!(
        "\nCtrl-C ends everything. Addresses and process ids: {dir}/demo.json"
    ));
    text
}
