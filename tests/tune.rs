//! `dispatchd tune`: what is found on made-up hosts, what is written there, and that `tuning/` says the same as the table.

use std::fs;
use std::path::Path;

use dispatchd::ops::tune::apply::apply_command;
use dispatchd::ops::tune::awake::keep_awake;
use dispatchd::ops::tune::host::Host;
use dispatchd::ops::tune::show::{Format, show};
use dispatchd::ops::tune::table::{LINES, Probe, Remedy};
use dispatchd::ops::tune::{Verdict, check, check_command};

const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 1048576              files     \n\
                      Max locked memory         8388608              unlimited            bytes     \n";

/// Whose limits they are on a host without the unit.
const OWN: &str = " (this shell; no dispatchd.service is installed)";

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A host on which every sysctl is as it should be.
fn good_host(root: &Path) -> Host {
    for line in LINES.iter().filter(|line| line.probe == Probe::Sysctl) {
        let path = format!("proc/sys/{}", line.name.replace('.', "/"));
        write(root, &path, &format!("{}\n", line.want.value().replace(' ', "\t")));
    }
    write(root, "proc/self/limits", LIMITS);
    for cpu in 0..4 {
        write(
            root,
            &format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"),
            "performance\n",
        );
    }
    write(root, "sys/devices/system/cpu/cpufreq/boost", "1\n");
    write(
        root,
        "sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never\n",
    );
    Host::at(root)
}

fn verdict(host: &Host, name: &str) -> Verdict {
    let found = check(host).into_iter().find(|(line, _)| line.name == name);
    found.unwrap_or_else(|| panic!("there is no line {name}")).1
}

fn printed(command: impl FnOnce(&mut Vec<u8>) -> std::io::Result<u8>) -> (u8, String) {
    let mut out = Vec::new();
    let status = command(&mut out).unwrap();
    (status, String::from_utf8(out).unwrap())
}

#[test]
fn a_host_that_has_everything_is_good() {
    let root = tempfile::tempdir().unwrap();
    let host = good_host(root.path());
    let (status, text) = printed(|out| check_command(&host, out));
    assert_eq!(status, 0, "{text}");
    assert!(text.ends_with("0 off\n"), "{text}");
    assert_eq!(verdict(&host, "conntrack"), Verdict::Absent);
    assert_eq!(
        verdict(&host, "limit: locked memory"),
        Verdict::Good(format!("unlimited{OWN}"))
    );
}

#[test]
fn the_table_of_connections_is_read_and_left_to_the_boot() {
    let root = tempfile::tempdir().unwrap();
    let host = good_host(root.path());
    let name = "net.ipv4.tcp_ehash_entries";
    let file = "proc/sys/net/ipv4/tcp_ehash_entries";
    assert_eq!(verdict(&host, name), Verdict::Absent, "older kernels do not say");
    write(root.path(), file, "1048576\n");
    assert_eq!(verdict(&host, name), Verdict::Good("1048576".into()));
    // A namespace that shares the host's table.
    write(root.path(), file, "-2097152\n");
    assert_eq!(verdict(&host, name), Verdict::Good("2097152".into()));
    write(root.path(), file, "-262144\n");
    assert_eq!(verdict(&host, name), Verdict::Off("262144".into()));
    let (status, text) = printed(|out| apply_command(&host, false, out));
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains("by hand: net.ipv4.tcp_ehash_entries (now 262144): `thash_entries=1048576`"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(root.path().join(file)).unwrap(), "-262144\n");
}

#[test]
fn cores_are_kept_awake_by_a_request_that_the_check_finds() {
    let root = tempfile::tempdir().unwrap();
    let host = good_host(root.path());
    let name = "wake-up of a core, µs";
    assert_eq!(verdict(&host, name), Verdict::Absent);
    assert!(keep_awake(&host, 0).is_err(), "there is no device");

    let device = root.path().join("dev/cpu_dma_latency");
    fs::create_dir_all(device.parent().unwrap()).unwrap();
    fs::write(&device, 2_000_000_000_i32.to_ne_bytes()).unwrap();
    assert_eq!(verdict(&host, name), Verdict::Off("nobody asked".into()));

    for latency_us_max in [2, 0] {
        drop(keep_awake(&host, latency_us_max).unwrap());
        assert_eq!(fs::read(&device).unwrap(), latency_us_max.to_ne_bytes());
        assert_eq!(verdict(&host, name), Verdict::Good(latency_us_max.to_string()));
    }
}

#[test]
fn each_kind_of_line_is_found_off() {
    let root = tempfile::tempdir().unwrap();
    let host = good_host(root.path());
    let limits = LIMITS.replace("1048576 ", "20000   ").replace("unlimited", "1048576  ");
    for (path, text, name, now) in [
        ("proc/sys/net/core/somaxconn", "4096", "net.core.somaxconn", "4096"),
        (
            "proc/sys/kernel/io_uring_disabled",
            "2",
            "kernel.io_uring_disabled",
            "2",
        ),
        ("proc/sys/vm/swappiness", "60", "vm.swappiness", "60"),
        (
            "proc/sys/net/ipv4/ip_local_port_range",
            "32768\t60999",
            "net.ipv4.ip_local_port_range",
            "32768 60999",
        ),
        ("proc/self/limits", &limits, "limit: open files", &format!("20000{OWN}")),
        (
            "proc/self/limits",
            &limits,
            "limit: locked memory",
            &format!("1048576{OWN}"),
        ),
        (
            "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor",
            "powersave",
            "cpufreq/scaling_governor",
            "performance and powersave",
        ),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "[always] madvise never",
            "transparent_hugepage",
            "always",
        ),
        ("proc/sys/net/netfilter/nf_conntrack_count", "7", "conntrack", "7"),
    ] {
        write(root.path(), path, text);
        assert_eq!(verdict(&host, name), Verdict::Off(now.into()), "{name}");
    }
    write(root.path(), "sys/class/net/eth0/device/msi_irqs/31", "");
    write(root.path(), "proc/irq/31/effective_affinity_list", "0-3\n");
    assert_eq!(verdict(&host, "NIC interrupts"), Verdict::Off("1".into()));
    write(root.path(), "proc/irq/31/effective_affinity_list", "2\n");
    assert_eq!(verdict(&host, "NIC interrupts"), Verdict::Good("0".into()));
    let (status, text) = printed(|out| check_command(&host, out));
    assert_eq!(status, 1);
    assert!(
        text.contains("should be at least 65535") && text.contains("effect:"),
        "{text}"
    );
}

/// What the service will have counts, not what the shell has that asks.
#[test]
fn limits_are_those_of_the_unit() {
    let root = tempfile::tempdir().unwrap();
    let host = good_host(root.path());
    let limits = |open_files: Verdict, locked: Verdict| {
        assert_eq!(verdict(&host, "limit: open files"), open_files);
        assert_eq!(verdict(&host, "limit: locked memory"), locked);
    };
    let good = |now: &str| Verdict::Good(format!("{now} (dispatchd.service)"));
    let off = |now: &str| Verdict::Off(format!("{now} (dispatchd.service)"));
    let unit = "usr/lib/systemd/system/dispatchd.service";
    write(
        root.path(),
        unit,
        "[Unit]\nLimitNOFILE=1048576\n[Service]\n#LimitNOFILE=1048576\n",
    );
    limits(off("not set"), off("not set"));
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/dispatchd.service");
    write(root.path(), unit, &fs::read_to_string(shipped).unwrap());
    limits(good("1048576"), good("unlimited"));
    // Drop-ins win by their names, and the administrator's over the vendor's.
    let vendors = "usr/lib/systemd/system/dispatchd.service.d/50-limits.conf";
    write(
        root.path(),
        vendors,
        "[Service]\nLimitNOFILE = 1024:20000\nLimitMEMLOCK=1M\n",
    );
    limits(off("20000"), off("1048576"));
    let own = "etc/systemd/system/dispatchd.service.d/50-limits.conf";
    write(root.path(), own, "[Service]\nLimitNOFILE=2000000\nLimitMEMLOCK=8M\n");
    limits(good("2000000"), good("8388608"));
    let later = "etc/systemd/system/dispatchd.service.d/90.conf";
    write(root.path(), later, "[Service]\nLimitNOFILE=\nLimitMEMLOCK=much\n");
    limits(off("not set"), off("much"));
    let whole = "etc/systemd/system/dispatchd.service";
    write(root.path(), whole, "[Service]\nLimitNOFILE=1\n");
    fs::remove_file(root.path().join(later)).unwrap();
    fs::remove_file(root.path().join(own)).unwrap();
    fs::remove_file(root.path().join(vendors)).unwrap();
    limits(off("1"), off("not set"));
}

#[test]
fn what_is_missing_is_said_unless_the_host_does_without() {
    let root = tempfile::tempdir().unwrap();
    let host = good_host(root.path());
    fs::remove_file(root.path().join("proc/sys/kernel/io_uring_disabled")).unwrap();
    fs::remove_file(root.path().join("proc/sys/net/core/somaxconn")).unwrap();
    assert_eq!(verdict(&host, "kernel.io_uring_disabled"), Verdict::Absent);
    assert!(matches!(verdict(&host, "net.core.somaxconn"), Verdict::Unreadable(_)));
}

#[test]
fn apply_writes_what_is_off_and_a_dry_run_nothing() {
    let root = tempfile::tempdir().unwrap();
    let host = good_host(root.path());
    let somaxconn = root.path().join("proc/sys/net/core/somaxconn");
    let governor = root.path().join("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor");
    let kept = root.path().join("etc/sysctl.d/90-dispatchd.conf");
    let file_max = root.path().join("proc/sys/fs/file-max");
    fs::write(&somaxconn, "128\n").unwrap();
    fs::write(&file_max, "9000000\n").unwrap();
    fs::write(&governor, "powersave\n").unwrap();

    let (status, text) = printed(|out| apply_command(&host, true, out));
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("would write") && text.contains("(now 128)"), "{text}");
    assert_eq!(fs::read_to_string(&somaxconn).unwrap(), "128\n");
    assert!(!kept.exists());

    let (status, text) = printed(|out| apply_command(&host, false, out));
    assert_eq!(status, 0, "{text}");
    assert_eq!(fs::read_to_string(&somaxconn).unwrap(), "65535");
    assert_eq!(fs::read_to_string(&governor).unwrap(), "performance");
    let kept = fs::read_to_string(&kept).unwrap();
    let as_they_were = show(Format::Sysctl).replace("fs.file-max = 2000000", "fs.file-max = 9000000");
    assert_eq!(kept, as_they_were, "nothing that is good is made less at the next boot");
    assert_eq!(printed(|out| check_command(&host, out)).0, 0);

    let (_, text) = printed(|out| apply_command(&host, false, out));
    assert_eq!(text, "done; 0 left to do\n", "the second time there is nothing to do");
}

#[test]
fn apply_leaves_to_people_what_it_cannot_do() {
    let root = tempfile::tempdir().unwrap();
    let host = good_host(root.path());
    write(root.path(), "proc/sys/net/netfilter/nf_conntrack_count", "9");
    let (status, text) = printed(|out| apply_command(&host, false, out));
    assert_eq!(status, 1);
    assert!(text.contains("by hand: conntrack (now 9)"), "{text}");
}

#[test]
fn the_files_of_tuning_say_what_the_table_says() {
    let tuning = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning");
    let drop_in = fs::read_to_string(tuning.join("sysctl.d/90-dispatchd.conf")).unwrap();
    assert_eq!(drop_in, show(Format::Sysctl), "`just tuning` prints it again");
    let readme = fs::read_to_string(tuning.join("README.md")).unwrap();
    assert!(
        readme.contains(&show(Format::Markdown)),
        "`just tuning` puts the table in again"
    );
    let unit = fs::read_to_string(tuning.join("../systemd/dispatchd.service")).unwrap();
    for line in LINES {
        match line.remedy {
            Remedy::Unit(setting) => assert!(unit.contains(setting), "the unit lacks {setting}"),
            Remedy::Script(path) | Remedy::Service(path) => {
                assert!(tuning.join("..").join(path).exists(), "{path} is missing");
            }
            Remedy::Sysctl | Remedy::File | Remedy::Boot(_) => {}
        }
        assert!(!line.why.is_empty() && !line.effect.is_empty(), "{}", line.name);
    }
}
