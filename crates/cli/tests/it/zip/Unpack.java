import java.io.BufferedInputStream;
import java.io.FileInputStream;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipInputStream;

/** Prints number of entries and a CRC over names and contents of an archive, read as a stream or as a file. */
public class Unpack {
    private static final byte[] BUFFER = new byte[1 << 18];

    private static void add(CRC32 crc, String name, InputStream content) throws Exception {
        crc.update(name.getBytes(StandardCharsets.UTF_8));
        crc.update(0);
        for (int read; (read = content.read(BUFFER)) >= 0; ) {
            crc.update(BUFFER, 0, read);
        }
    }

    public static void main(String[] arguments) throws Exception {
        int entries = 0;
        CRC32 crc = new CRC32();
        String path = arguments[1];
        if (arguments[0].equals("stream")) {
            InputStream file = new BufferedInputStream(new FileInputStream(path), 1 << 18);
            try (ZipInputStream zip = new ZipInputStream(file)) {
                for (ZipEntry entry; (entry = zip.getNextEntry()) != null; entries++) {
                    add(crc, entry.getName(), zip);
                }
            }
        } else {
            try (ZipFile zip = new ZipFile(path)) {
                for (ZipEntry entry : Collections.list(zip.entries())) {
                    try (InputStream content = zip.getInputStream(entry)) {
                        add(crc, entry.getName(), content);
                    }
                    entries++;
                }
            }
        }
        System.out.println(entries + " " + crc.getValue());
    }
}
