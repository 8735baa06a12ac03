# shellcheck shell=bash
# What the recipes of disks share: Debian's packages whose files are on them, and partitions.

esp_mib=96

# The package that Debian's metapackage of cloud kernels brings.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# versions PACKAGE...: their names and versions, for a recipe's hash.
versions() {
    local package
    for package in "$@"; do
        apt-cache show --no-all-versions "$package" | sed -n 's/^\(Package\|Version\): //p'
    done
}

# unpack PACKAGE...: their files into ./packages, and the kernel's among them as ./vmlinuz.
unpack() {
    local package
    mkdir packages
    apt-get --quiet=2 -o "APT::Sandbox::User=$(id --user --name)" download "$@" >&2
    for package in *.deb; do
        dpkg-deb --extract "$package" packages
    done
    cp packages/boot/vmlinuz-* vmlinuz
}

# esp FILE SOURCE=PATH...: a FAT file system with these files.
esp() {
    local file=$1 pair dir part
    shift
    truncate --size "${esp_mib}M" "$file"
    mformat -i "$file" -F -v ESP ::
    for pair in "$@"; do
        dir=
        while IFS= read -r part; do
            dir=$dir/$part
            mmd -D s -i "$file" "::$dir" >/dev/null 2>&1 || true
        done < <(dirname "${pair#*=}" | tr '/' '\n' | grep .)
        mcopy -o -i "$file" "${pair%%=*}" "::${pair#*=}"
    done
}

# gpt DISK ESP [ROOT]: a GPT of an EFI system partition, and of a root.
gpt() {
    local disk=$1 esp=$2 root=${3:-} start=2048 sectors
    sectors=$(($(stat --format %s "$esp") / 512))
    truncate --size "$((esp_mib + 64))M" "$disk"
    {
        echo 'label: gpt'
        echo "start=$start, size=$sectors, type=U"
        [[ -z $root ]] || echo "start=$((start + sectors)), size=$(($(stat --format %s "$root") / 512)), type=L"
    } | sfdisk --quiet "$disk"
    dd if="$esp" of="$disk" bs=512 seek="$start" conv=notrunc,sparse status=none
    [[ -z $root ]] || dd if="$root" of="$disk" bs=512 seek=$((start + sectors)) conv=notrunc,sparse status=none
}
