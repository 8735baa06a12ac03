#!/bin/sh
# User data for the tiny AMI: what Packer needs and the AMI does not have, the receiving end of `scp -t DIRECTORY` for single
# files.
cat >/usr/bin/scp <<'END'
#!/bin/sh
for target; do :; done
printf '\0'
while read -r mode size name; do
    printf '\0'
    [ "${mode#C}" != "$mode" ] || continue
    file=$target
    [ ! -d "$target" ] || file=$target/$name
    dd bs=1 count="$size" of="$file" 2>/dev/null
    dd bs=1 count=1 of=/dev/null 2>/dev/null
    printf '\0'
done
END
chmod 755 /usr/bin/scp
